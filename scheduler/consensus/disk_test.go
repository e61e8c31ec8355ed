package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/consensus"
	"github.com/boss/demo-multiplexer/scheduler/consensus/consensustest"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// onDisk returns the options of a real server: files in dir, TCP on loopback.
func onDisk(t testing.TB, id, dir, bind string) consensus.Options {
	return consensus.Options{
		ID: api.ServerID(id), DataDir: dir, Bind: bind,
		Logger:    slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Snapshots: consensus.Snapshots{Interval: 10 * time.Millisecond, Threshold: 64, Trailing: 8},
	}
}

func newNode(t testing.TB, o consensus.Options) *consensus.Node {
	t.Helper()
	n, err := consensus.New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return n
}

// eventually waits in real time.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	const patience = 30 * time.Second // the machine may be busy
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s: %v", patience, what, err)
		}
		<-ticker.C
	}
}

// leaderOf waits for a leader that has applied everything before it.
func leaderOf(t testing.TB, nodes []*consensus.Node) *consensus.Node {
	t.Helper()
	var leader *consensus.Node
	eventually(t, "a server leads", func() error {
		for _, n := range nodes {
			if n.VerifyLeader(t.Context()) == nil {
				leader = n
				return nil
			}
		}
		return errors.New("none does")
	})
	return leader
}

// TestRestartFromDisk runs three servers on real files and sockets, stops them
// all and starts them again.
func TestRestartFromDisk(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	addresses := make([]string, len(dirs))
	start := func() (nodes []*consensus.Node, stops []func() error) {
		for i, dir := range dirs {
			bind := addresses[i]
			if bind == "" {
				bind = "127.0.0.1:0"
			}
			n := newNode(t, onDisk(t, fmt.Sprintf("s%d", i), dir, bind))
			stops = append(stops, run(t, n))
			nodes = append(nodes, n)
		}
		return nodes, stops
	}
	nodes, stops := start()
	var members []consensus.Server
	for i, n := range nodes {
		if n.HasState() {
			t.Errorf("server %d has a state before it was bootstrapped", i)
		}
		if ok, why := n.Ready(); ok || !strings.Contains(why, "no Raft group") {
			t.Errorf("server %d: Ready = %t, %q before it was bootstrapped", i, ok, why)
		}
		addresses[i] = n.Address()
		members = append(members, consensus.Server{ID: api.ServerID(fmt.Sprintf("s%d", i)), Address: addresses[i]})
	}
	for _, n := range nodes {
		if err := n.Bootstrap(members); err != nil {
			t.Fatalf("Bootstrap: %v", err)
		}
	}
	leader := leaderOf(t, nodes)
	stock(t, leader, 100)
	must(t, leader, claimOf(1, 7))
	want := leader.View().Revision()
	for i, stop := range stops {
		if err := stop(); err != nil {
			t.Errorf("server %d ended with: %v", i, err)
		}
	}

	nodes, _ = start()
	leader = leaderOf(t, nodes)
	for i, n := range nodes {
		if !n.HasState() {
			t.Errorf("server %d has forgotten that it belongs to a group", i)
		}
		eventually(t, "the state is recovered", func() error {
			if got := n.View().Revision(); got != want {
				return fmt.Errorf("server %d is at revision %d, want %d", i, got, want)
			}
			return nil
		})
		if err := state.Check(n.View()); err != nil {
			t.Errorf("server %d: %v", i, err)
		}
		if l, ok := n.View().Lease("l-1"); !ok || l.Instance != "i-7" {
			t.Errorf("server %d has lost the lease: %+v", i, l)
		}
	}
	refused, err := leader.Propose(t.Context(), claimOf(2, 7))
	if err != nil || api.CodeOf(refused.Err()) != api.CodeConflict {
		t.Errorf("a second claim of the instance gave %v, %v, want a conflict", refused.Err(), err)
	}
}

// alone starts a bootstrapped group of one on disk.
func alone(t *testing.T, dir string) (*consensus.Node, func() error) {
	t.Helper()
	n := newNode(t, onDisk(t, "s0", dir, "127.0.0.1:0"))
	stop := run(t, n)
	if err := n.Bootstrap([]consensus.Server{{ID: "s0", Address: n.Address()}}); err != nil {
		t.Fatalf("Bootstrap: %v", err)
	}
	leaderOf(t, []*consensus.Node{n})
	return n, stop
}

// wantEnd checks that n ends by itself with an error that says so much.
func wantEnd(t *testing.T, n *consensus.Node, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := n.Run(ctx)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Run = %v, want an error with %q", err, want)
	}
}

func TestRefusesToStart(t *testing.T) {
	t.Run("directory in use", func(t *testing.T) {
		dir := t.TempDir()
		alone(t, dir)
		wantEnd(t, newNode(t, onDisk(t, "s0", dir, "127.0.0.1:0")), "is used by another process")
	})
	t.Run("directory is a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		wantEnd(t, newNode(t, onDisk(t, "s0", file, "127.0.0.1:0")), "cannot be made")
	})
	t.Run("port taken", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		wantEnd(t, newNode(t, onDisk(t, "s0", t.TempDir(), l.Addr().String())), "address already in use")
	})
	t.Run("address of nobody", func(t *testing.T) {
		wantEnd(t, newNode(t, onDisk(t, "s0", t.TempDir(), "0.0.0.0:0")), "advertise another")
	})
	t.Run("twice", func(t *testing.T) {
		n, _ := alone(t, t.TempDir())
		wantEnd(t, n, "only once")
	})
	t.Run("options", func(t *testing.T) {
		_, err := consensus.New(consensus.Options{Timing: consensus.Timing{Heartbeat: 1, Lease: time.Hour}})
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.CodeInvalid || len(e.Fields) != 5 {
			t.Errorf("New of nothing = %v, want five invalid fields", err)
		}
	})
}

// patience bounds the wait for a node that should end by itself.
const patience = 20 * time.Second

// snapshotsOf waits until a group of one has taken snapshots, and cut the log
// off behind the one before the last, and stops it.
func snapshotsOf(t *testing.T, dir string, want int) (files []string, revision uint64) {
	t.Helper()
	n, stop := alone(t, dir)
	var earlier string // the newest when there were enough: the log is cut off before the next is taken
	eventually(t, "snapshots are taken", func() error {
		for range 100 {
			must(t, n, nothing())
		}
		var err error
		if files, err = filepath.Glob(filepath.Join(dir, "snapshots", "*-*-*", "state.bin")); err != nil || len(files) < want {
			return fmt.Errorf("%d snapshots, %w", len(files), err)
		}
		newest := files[len(files)-1]
		if earlier == "" {
			earlier = newest
		}
		if newest == earlier {
			return fmt.Errorf("no snapshot after %s", earlier)
		}
		return nil
	})
	revision = n.View().Revision()
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	return files, revision
}

// TestDamagedSnapshot: the log does not reach back to an older snapshot, so
// the server must not start from it.
func TestDamagedSnapshot(t *testing.T) {
	dir := t.TempDir()
	snapshotsOf(t, dir, 2)
	files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*-*-*", "state.bin"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	newest := files[len(files)-1]
	b, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(newest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, newNode(t, onDisk(t, "s0", dir, "127.0.0.1:0")), "failed to load any existing snapshots")

	if err := os.RemoveAll(filepath.Join(dir, "snapshots")); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, newNode(t, onDisk(t, "s0", dir, "127.0.0.1:0")), "no snapshot leads up to it")
}

// TestTornLog: what was being written when the power went is cut off, what was
// acknowledged stays.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	n, stop := alone(t, dir)
	stock(t, n, 5)
	want := n.View().Revision()
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "log", "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments = %v, %v", segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	torn := append(b[:(end+7)/8*8:len(b)], "torn"...) // the next frame begins, and ends nowhere
	if err := os.WriteFile(segments[0], append(torn, b[len(torn):]...), 0o600); err != nil {
		t.Fatal(err)
	}
	again := newNode(t, onDisk(t, "s0", dir, n.Address()))
	run(t, again)
	leaderOf(t, []*consensus.Node{again})
	if got := again.View().Revision(); got != want {
		t.Errorf("revision %d after a torn write, want %d", got, want)
	}
}

// failing is a disk that refuses from some moment on.
type failing struct {
	raft.LogStore
	raft.StableStore
	logs, terms atomic.Bool
}

func (f *failing) StoreLogs(logs []*raft.Log) error {
	if f.logs.Load() {
		return syscall.ENOSPC
	}
	return f.LogStore.StoreLogs(logs)
}

func (f *failing) SetUint64(key []byte, value uint64) error {
	if f.terms.Load() {
		return syscall.EIO
	}
	return f.StableStore.SetUint64(key, value)
}

// brokenCluster is a group of one on a disk that can be broken.
func brokenGroup(t *testing.T) (*consensus.Node, *failing, chan error) {
	t.Helper()
	store := raft.NewInmemStore()
	disk := &failing{LogStore: store, StableStore: store}
	_, transport := raft.NewInmemTransport("s0.test:7000")
	n := newNode(t, consensus.Options{
		ID: "s0", Logger: slog.New(slog.DiscardHandler),
		Transport: transport, LogStore: disk, StableStore: disk, SnapshotStore: raft.NewInmemSnapshotStore(),
	})
	ended := make(chan error, 1)
	go func() { ended <- n.Run(t.Context()) }()
	<-n.Started()
	if err := n.Bootstrap([]consensus.Server{{ID: "s0", Address: "s0.test:7000"}}); err != nil {
		t.Fatalf("Bootstrap: %v", err)
	}
	return n, disk, ended
}

func TestFullDiskStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, disk, ended := brokenGroup(t)
		leaderOf(t, []*consensus.Node{n})
		must(t, n, nothing())
		disk.logs.Store(true)
		if _, err := n.Propose(t.Context(), nothing()); api.CodeOf(err) != api.CodeUncertain {
			t.Errorf("Propose on a full disk = %v, want code uncertain", err)
		}
		if err := <-ended; !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk refused log entries") {
			t.Errorf("Run = %v, want the reason", err)
		}
	})
}

func TestUnwritableTermStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, disk, ended := brokenGroup(t)
		disk.terms.Store(true) // before the first election
		if err := <-ended; !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "the disk refused the term") {
			t.Errorf("Run = %v, want the reason", err)
		}
	})
}

// TestForeignEntryStops puts an entry into the log that this binary does not
// understand, as a newer one would: the replica must stop before it.
func TestForeignEntryStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var foreign *raft.InmemStore
		c := consensustest.New(t, 1, func(o *consensus.Options) { foreign = o.LogStore.(*raft.InmemStore) })
		must(t, c.Node(c.Leader(t)), nothing())
		c.Crash(0)
		last, err := foreign.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := foreign.StoreLog(&raft.Log{Index: last + 1, Term: c.Node(0).Term(), Type: raft.LogCommand, Data: []byte("from the future")}); err != nil {
			t.Fatal(err)
		}
		_, transport := raft.NewInmemTransport("s0.test:7000")
		n := newNode(t, consensus.Options{
			ID: "s0", Logger: slog.New(slog.DiscardHandler),
			Transport: transport, LogStore: foreign, StableStore: foreign, SnapshotStore: raft.NewInmemSnapshotStore(),
		})
		err = n.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "cannot be applied, so this replica stops") {
			t.Errorf("Run = %v, want the reason", err)
		}
		if got := n.View().Revision(); got != 1 {
			t.Errorf("revision %d, want 1: nothing after the foreign entry", got)
		}
	})
}
