package simtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/consensus/consensustest"
	"github.com/boss/demo-multiplexer/scheduler/lease"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
	"github.com/boss/demo-multiplexer/scheduler/session"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	nodeCapacity = 20
	warmTarget   = 8
	leaseTTL     = 2 * time.Minute
	longestLease = 10 * time.Minute
	nodeGrace    = 5 * time.Second
	// patience bounds every wait; in virtual time it costs little.
	patience = 2 * time.Minute
)

// world is a cluster with its hosts and its edge.
type world struct {
	t       *testing.T
	group   *consensustest.Cluster
	logger  *slog.Logger
	servers []atomic.Pointer[server] // visitors read what faults replace
	hosts   []*host
	edge    *edge
}

// server is what one scheduler does on top of consensus.
type server struct {
	leases *lease.Service
	stop   func() // ends and joins
}

func newWorld(t *testing.T, seed uint64, schedulers, nodes int) *world {
	t.Helper()
	w := &world{
		t: t, edge: &edge{id: "e1"},
		logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	}
	w.group = consensustest.New(t, schedulers)
	for i := range nodes {
		w.hosts = append(w.hosts, newHost(t, fmt.Sprintf("n%d", i), seed, w.logger))
	}
	w.servers = make([]atomic.Pointer[server], schedulers)
	for i := range schedulers {
		w.serve(i)
	}
	t.Cleanup(func() {
		for i := range w.servers {
			w.servers[i].Load().stop()
		}
	})
	return w
}

// serve starts the parts of scheduler i on its running consensus node.
func (w *world) serve(i int) {
	w.t.Helper()
	node := w.group.Node(i)
	records, err := session.NewEmbedded(session.EmbeddedOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	url := func(host string) string { return "http://" + host }
	r, err := reconcile.New(reconcile.Options{
		Log: node, Members: w, Dial: w.dial, Edges: []reconcile.Edge{w.edge}, URL: url,
		NewHost:   func() string { return api.NewHostLabel() + ".demo.test" },
		NodeGrace: nodeGrace, LeaderGrace: time.Second, EndedKept: time.Hour, Logger: w.logger,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	leases, err := lease.New(lease.Options{Log: node, Records: records, Routes: r, Nodes: r, URL: url, Logger: w.logger})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = leases.Run(ctx) }) // both only end with ctx
	parts.Go(func() {
		_ = node.Lead(ctx, func(ctx context.Context, term uint64) error { return r.Lead(ctx, term, leases) })
	})
	w.servers[i].Store(&server{leases: leases, stop: sync.OnceFunc(func() { cancel(); parts.Wait() })})
}

// crash ends scheduler i without a word; its disk stays.
func (w *world) crash(i int) {
	w.group.Crash(i)
	w.servers[i].Load().stop()
}

func (w *world) restart(i int) {
	w.group.Restart(i)
	w.serve(i)
}

// Agents implements reconcile.Members: gossip sees every host whose agent runs
// and answers.
func (w *world) Agents() []reconcile.Member {
	var all []reconcile.Member
	for _, h := range w.hosts {
		h.mu.Lock()
		alive := h.agent != nil && !h.silent
		h.mu.Unlock()
		all = append(all, reconcile.Member{ID: h.id, URL: "http://" + address(h.id) + ":7070", Alive: alive})
	}
	return all
}

func address(id api.NodeID) string { return "10.0.0.1" + string(id[1:]) }

// Subscribe implements reconcile.Members: whoever misses news looks again by
// itself.
func (w *world) Subscribe() (<-chan struct{}, func()) { return nil, func() {} }

func (w *world) dial(url string) (reconcile.Agent, error) {
	for _, h := range w.hosts {
		if url == "http://"+address(h.id)+":7070" {
			return wire{h}, nil
		}
	}
	return nil, errors.New("no such host")
}

// edge takes tables and fences them, as a real edge does.
type edge struct {
	id api.EdgeID

	mu    sync.Mutex // guards table
	table api.RouteTable
}

// ID implements reconcile.Edge.
func (e *edge) ID() api.EdgeID { return e.id }

// Status implements reconcile.Edge.
func (e *edge) Status() api.EdgeStatus { return api.EdgeStatus{ID: e.id, Healthy: true} }

// Sync implements reconcile.Edge.
func (e *edge) Sync(_ context.Context, t api.RouteTable) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.Term < e.table.Term || t.Term == e.table.Term && t.Generation < e.table.Generation {
		return api.Errorf(api.CodeConflict, "this table is old")
	}
	e.table = t
	return nil
}

// upstream returns where a host name leads.
func (e *edge) upstream(host string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.table.Routes {
		if r.Host == host {
			return r.Upstream
		}
	}
	return ""
}

// view returns the state of the leader.
func (w *world) view() *state.View { return w.group.Node(w.group.Leader(w.t)).View() }

// apply applies the template of the tests.
func (w *world) apply(warm int) {
	w.t.Helper()
	t := api.Template{
		Name: "shop", Image: "localhost/demo/shop:latest", Port: 8080, Pool: api.Pool{Warm: warm},
		TTL: api.TTL{Default: api.Duration(leaseTTL), Max: api.Duration(longestLease)},
	}.WithDefaults()
	w.group.Eventually(w.t, "the template is applied", func() error {
		r, err := w.group.Node(w.group.Leader(w.t)).Propose(w.t.Context(), state.PutTemplate{Spec: t})
		return errors.Join(err, r.Err())
	})
}

// within waits until ok returns nil.
func (w *world) within(limit time.Duration, what string, ok func() error) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond) // virtual
	}
}

// full reports whether the pool holds what it should.
func (w *world) full(want int) error {
	if c := w.view().TemplateCounts("shop"); c.Warm != want || c.Pending+c.Ending+c.Failed != 0 {
		return fmt.Errorf("the pool holds %+v, want %d warm and nothing under way", c, want)
	}
	return nil
}
