package consensus

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/hashicorp/raft"
)

// diskGuard turns a refused write or a damaged read into the end of the
// process. The library would log it, step down and try again, or panic; but a
// log whose tail is unknown must be read anew from the start.
type diskGuard struct {
	raft.LogStore
	raft.StableStore
	fatal func(error)
}

func (g *diskGuard) refused(what string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("the disk refused %s, so this scheduler stops: %w", what, err)
	g.fatal(err)
	return err
}

// StoreLog implements raft.LogStore.
func (g *diskGuard) StoreLog(l *raft.Log) error {
	return g.refused("a log entry", g.LogStore.StoreLog(l))
}

// StoreLogs implements raft.LogStore.
func (g *diskGuard) StoreLogs(logs []*raft.Log) error {
	return g.refused("log entries", g.LogStore.StoreLogs(logs))
}

// DeleteRange implements raft.LogStore.
func (g *diskGuard) DeleteRange(first, last uint64) error {
	return g.refused("to cut the log", g.LogStore.DeleteRange(first, last))
}

// GetLog implements raft.LogStore.
func (g *diskGuard) GetLog(index uint64, l *raft.Log) error {
	err := g.LogStore.GetLog(index, l)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	return g.refused("to read the log", err)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (g *diskGuard) IsMonotonic() bool {
	m, ok := g.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// Set implements raft.StableStore.
func (g *diskGuard) Set(key, value []byte) error {
	return g.refused("the vote", g.StableStore.Set(key, value))
}

// SetUint64 implements raft.StableStore. The library panics where the term
// cannot be written. Ending its goroutine instead lets the node stop in order
// and say why; the node is shut down by then, so nobody waits for the
// goroutine's work.
func (g *diskGuard) SetUint64(key []byte, value uint64) error {
	if err := g.refused("the term", g.StableStore.SetUint64(key, value)); err != nil {
		runtime.Goexit()
	}
	return nil
}

// snapshots hides the snapshots that the log does not continue: after a
// damaged newer one the library would fall back to them and leave a gap.
type snapshots struct {
	raft.SnapshotStore
	log raft.LogStore
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	if err != nil {
		return nil, err
	}
	first, err := s.log.FirstIndex()
	if err != nil {
		return nil, err
	}
	usable := all[:0:0]
	for i, m := range all {
		if i == 0 || continues(m, first) {
			usable = append(usable, m)
		}
	}
	return usable, nil
}

func continues(m *raft.SnapshotMeta, first uint64) bool { return first <= m.Index+1 }

// checkGap refuses a log whose beginning was cut off and that no snapshot
// leads up to. Applying it would guess what came before.
func (s *snapshots) checkGap() error {
	first, err := s.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if first <= 1 {
		return nil
	}
	all, err := s.SnapshotStore.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	if len(all) > 0 && continues(all[0], first) {
		return nil
	}
	return fmt.Errorf("the log begins with entry %d, but no snapshot leads up to it; "+
		"remove the data directory and let this scheduler join anew, or restore it from a backup", first)
}
