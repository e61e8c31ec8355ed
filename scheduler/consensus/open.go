package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// logCacheEntries is how many recent entries are kept in memory, so that
// replication does not read them back from disk.
const logCacheEntries = 512

// parts are the foundations of a Raft node, with what closes them.
type parts struct {
	guard     *diskGuard
	log       raft.LogStore // guard behind a cache
	snapshots *snapshots
	transport *relay
	closers   []func() error
}

// close closes in reverse order of opening.
func (p *parts) close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	return errors.Join(errs...)
}

// open opens the data directory and starts to listen. Nothing stays open where
// it fails.
func open(o Options, logger hclog.Logger, fatal func(error)) (_ *parts, err error) {
	p := &parts{guard: &diskGuard{LogStore: o.LogStore, StableStore: o.StableStore, fatal: fatal}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	store := o.SnapshotStore
	if o.onDisk() {
		if err := p.lock(o.DataDir); err != nil {
			return nil, err
		}
	}
	if o.LogStore == nil || o.StableStore == nil {
		if err := p.openLog(filepath.Join(o.DataDir, "log"), logger); err != nil {
			return nil, err
		}
	}
	if store == nil {
		if store, err = raft.NewFileSnapshotStoreWithLogger(o.DataDir, o.Snapshots.Retain, logger); err != nil {
			return nil, fmt.Errorf("the snapshots in %s cannot be opened: %w", o.DataDir, err)
		}
	}
	if p.log, err = raft.NewLogCache(logCacheEntries, p.guard); err != nil {
		return nil, fmt.Errorf("make log cache: %w", err)
	}
	p.snapshots = &snapshots{SnapshotStore: store, log: p.guard}
	if err := p.snapshots.checkGap(); err != nil {
		return nil, err
	}
	transport, err := openTransport(o, logger)
	if err != nil {
		return nil, err
	}
	p.transport = newRelay(transport)
	p.closers = append(p.closers, transport.Close)
	if streams, ok := transport.(interface{ CloseStreams() }); ok {
		// The library closes its listener only, and leaves kept connections to
		// the garbage collector, with a goroutine of the peer on each.
		p.closers = append(p.closers, func() error { streams.CloseStreams(); return nil })
	}
	return p, nil
}

// lock makes sure that the directory exists, can be written and belongs to
// this process alone.
func (p *parts) lock(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the data directory %s cannot be made: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be written: %w", dir, err)
	}
	p.closers = append(p.closers, f.Close) // and with it the lock
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("the data directory %s is used by another process; stop that one or choose another directory", dir)
		}
		return fmt.Errorf("the data directory %s cannot be locked: %w", dir, err)
	}
	return nil
}

// openLog opens the write-ahead log. It does not close its own database of
// metadata, so that is opened, and closed, beside it.
func (p *parts) openLog(dir string, logger hclog.Logger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the log directory %s cannot be made: %w", dir, err)
	}
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithLogger(logger), wal.WithMetaStore(meta))
	if err != nil {
		return errors.Join(fmt.Errorf("the log in %s cannot be opened: %w", dir, err), meta.Close())
	}
	p.closers = append(p.closers, meta.Close, w.Close)
	if p.guard.LogStore == nil {
		p.guard.LogStore = w
	}
	if p.guard.StableStore == nil {
		p.guard.StableStore = w
	}
	return nil
}
