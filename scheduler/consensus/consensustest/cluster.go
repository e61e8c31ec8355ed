package consensustest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/consensus"
)

const (
	// patience is how long waiting helpers wait. In virtual time it costs nothing.
	patience = 20 * time.Second
	// glance is how often they look.
	glance = 10 * time.Millisecond
)

// Cluster is a Raft group in one test.
type Cluster struct {
	t       testing.TB
	adjust  []func(*consensus.Options)
	servers []*server
}

// server is one member, with the disk that survives its crashes.
type server struct {
	id        api.ServerID
	address   raft.ServerAddress
	log       *raft.InmemStore
	snapshots *raft.InmemSnapshotStore

	transport *raft.InmemTransport
	node      *consensus.Node
	stop      context.CancelFunc
	ended     chan error // the outcome of Run; nil while crashed
	isolated  bool
}

// New starts a group of n servers, s0 and so on, which ends with the test. The
// functions may change the options of every server.
func New(t testing.TB, n int, adjust ...func(*consensus.Options)) *Cluster {
	t.Helper()
	c := &Cluster{t: t, adjust: adjust}
	t.Cleanup(c.close)
	var members []consensus.Server
	for range n {
		s := c.add()
		members = append(members, consensus.Server{ID: s.id, Address: string(s.address)})
	}
	for i := range n {
		c.start(i)
		if err := c.servers[i].node.Bootstrap(members); err != nil {
			t.Fatalf("bootstrap server %d: %v", i, err)
		}
	}
	return c
}

func (c *Cluster) add() *server {
	id := fmt.Sprintf("s%d", len(c.servers))
	s := &server{
		id: api.ServerID(id), address: raft.ServerAddress(id + ".test:7000"),
		log: raft.NewInmemStore(), snapshots: raft.NewInmemSnapshotStore(),
	}
	c.servers = append(c.servers, s)
	return s
}

// start runs server i on its disk and waits until it takes part.
func (c *Cluster) start(i int) {
	c.t.Helper()
	s := c.servers[i]
	_, s.transport = raft.NewInmemTransport(s.address)
	o := consensus.Options{
		ID:        s.id,
		Logger:    slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("server", s.id),
		Transport: s.transport, LogStore: s.log, StableStore: s.log, SnapshotStore: s.snapshots,
	}
	for _, f := range c.adjust {
		f(&o)
	}
	node, err := consensus.New(o)
	if err != nil {
		c.t.Fatalf("make server %d: %v", i, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	s.node, s.stop, s.ended = node, stop, ended
	select {
	case <-node.Started():
	case err := <-ended:
		s.ended = nil
		stop()
		c.t.Fatalf("server %d did not start: %v", i, err)
	}
	c.link()
}

// link connects exactly those servers that run and are not isolated.
func (c *Cluster) link() {
	for i, a := range c.servers {
		for j, b := range c.servers {
			switch {
			case i == j || a.transport == nil || b.transport == nil:
			case c.reachable(i) && c.reachable(j):
				a.transport.Connect(b.address, b.transport)
			default:
				a.transport.Disconnect(b.address)
			}
		}
	}
}

func (c *Cluster) reachable(i int) bool {
	s := c.servers[i]
	return s.ended != nil && !s.isolated
}

// Size returns the number of servers, crashed ones included.
func (c *Cluster) Size() int { return len(c.servers) }

// Node returns server i. After a restart it is another one.
func (c *Cluster) Node(i int) *consensus.Node { return c.servers[i].node }

// Join starts a further server, without history, and makes the leader add it.
func (c *Cluster) Join(t testing.TB) int {
	t.Helper()
	s := c.add()
	i := len(c.servers) - 1
	c.start(i)
	if err := c.Node(c.Leader(t)).AddVoter(t.Context(), consensus.Server{ID: s.id, Address: string(s.address)}); err != nil {
		t.Fatalf("add server %d: %v", i, err)
	}
	return i
}

// Leader waits until a reachable server leads, with a majority behind it, and
// returns its number.
func (c *Cluster) Leader(t testing.TB) int {
	t.Helper()
	leader := -1
	c.Eventually(t, "a server leads", func() error {
		err := fmt.Errorf("no server claims to lead")
		for i := range c.servers {
			if !c.reachable(i) {
				continue
			}
			if self, _ := c.Node(i).Leader(); !self {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err = c.Node(i).VerifyLeader(ctx)
			cancel()
			if err == nil {
				leader = i
				return nil
			}
		}
		return err
	})
	return leader
}

// Isolate cuts server i off from all others.
func (c *Cluster) Isolate(i int) {
	c.servers[i].isolated = true
	c.link()
}

// Heal ends every isolation.
func (c *Cluster) Heal() {
	for _, s := range c.servers {
		s.isolated = false
	}
	c.link()
}

// Crash ends server i without a word to the others. Its disk stays.
func (c *Cluster) Crash(i int) {
	c.t.Helper()
	s := c.servers[i]
	ended := s.ended
	s.ended = nil
	c.link() // first, so that it cannot hand over leadership
	s.stop()
	if err := <-ended; err != nil {
		c.t.Errorf("server %d ended with: %v", i, err)
	}
}

// Stop ends server i in order: it hands over leadership first.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	s := c.servers[i]
	s.stop()
	if err := <-s.ended; err != nil {
		c.t.Errorf("server %d ended with: %v", i, err)
	}
	s.ended = nil
	c.link()
}

// Restart starts a crashed or stopped server again, on its disk.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.start(i)
}

// WaitEqual waits until all reachable servers hold the same revision of the
// state.
func (c *Cluster) WaitEqual(t testing.TB) {
	t.Helper()
	leader := c.Leader(t)
	c.Eventually(t, "all servers are equal", func() error {
		want := c.Node(leader).View().Revision()
		for i := range c.servers {
			if got := c.Node(i).View().Revision(); c.reachable(i) && got != want {
				return fmt.Errorf("server %d is at revision %d, the leader at %d", i, got, want)
			}
		}
		return nil
	})
}

// Eventually waits until ok returns nil, and fails the test with its last
// error otherwise.
func (c *Cluster) Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	ticker := time.NewTicker(glance)
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

func (c *Cluster) close() {
	for i, s := range c.servers {
		if s.ended != nil {
			c.Crash(i)
		}
	}
}
