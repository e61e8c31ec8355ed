package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	nodeGrace = 5 * time.Second
	endedKept = 10 * time.Minute
)

// world is a cluster around one leader.
type world struct {
	t       *testing.T
	log     *fakeLog
	members *fakeMembers
	agents  map[api.NodeID]*fakeAgent
	edge    *fakeEdge
	rec     *fakeRecorder
	r       *reconcile.Reconciler
}

// run runs fn in virtual time in a world with these nodes, and checks at its
// end that no agent was asked for nonsense.
func run(t *testing.T, nodes []api.NodeID, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, log: newFakeLog(), members: &fakeMembers{changed: make(chan struct{}, 1)}, agents: map[api.NodeID]*fakeAgent{},
			edge: &fakeEdge{id: "e1"}, rec: &fakeRecorder{records: map[api.LeaseID]int{}},
		}
		for n, id := range nodes {
			w.join(newFakeAgent(id, n+1))
		}
		hosts := 0
		var err error
		w.r, err = reconcile.New(reconcile.Options{
			Log: w.log, Members: w.members, Dial: w.dial, Edges: []reconcile.Edge{w.edge},
			URL:       func(host string) string { return "http://" + host },
			NewHost:   func() string { hosts++; return fmt.Sprintf("d-%d.demo.test", hosts) },
			NodeGrace: nodeGrace, LeaderGrace: 10 * time.Second, EndedKept: endedKept,
			Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})), Registerer: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		fn(w)
		if err := state.Check(w.log.View()); err != nil {
			t.Errorf("the state is broken: %v", err)
		}
		for id, a := range w.agents {
			_, _, faults := a.history()
			for _, fault := range faults {
				t.Errorf("node %s was asked for nonsense: %s", id, fault)
			}
		}
	})
}

func (w *world) join(a *fakeAgent) {
	w.agents[a.node.ID] = a
	w.members.set(func(m []reconcile.Member) []reconcile.Member {
		return append(m, reconcile.Member{ID: a.node.ID, URL: a.url, Alive: true})
	})
}

func (w *world) dial(url string) (reconcile.Agent, error) {
	for _, a := range w.agents {
		if a.url == url {
			return a, nil
		}
	}
	return nil, fmt.Errorf("nobody at %s", url)
}

// lead leads a term until the returned function is called.
func (w *world) lead(term uint64) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.r.Lead(ctx, term, w.rec) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Lead: %v", err)
		}
	}
}

func (w *world) template(warm int) {
	w.log.must(w.t, state.PutTemplate{Spec: api.Template{Name: "shop", Image: "shop", Port: 80, Pool: api.Pool{Warm: warm}}.WithDefaults()})
}

func (w *world) counts() state.Counts { return w.log.View().TemplateCounts("shop") }

// eventually waits until check returns no complaint.
func (w *world) eventually(within time.Duration, check func() string) {
	w.t.Helper()
	start, last := time.Now(), ""
	for time.Since(start) <= within {
		if last = check(); last == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("after %s: %s", within, last)
}

func (w *world) warm(n int, within time.Duration) {
	w.t.Helper()
	w.eventually(within, func() string {
		if c := w.counts(); c.Warm != n || c.Pending != 0 {
			return fmt.Sprintf("instances are %+v, want %d warm and none pending", c, n)
		}
		return ""
	})
}

// claim leases the longest warm instance.
func (w *world) claim(ttl time.Duration) *state.Lease {
	w.t.Helper()
	for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
		return w.log.must(w.t, state.ClaimLease{
			Lease: api.NewLeaseID(), Instance: i.ID, InstanceRevision: i.Revision, TTL: api.Duration(ttl), MaxTTL: api.Duration(2 * ttl),
		}).Lease
	}
	w.t.Fatal("no instance is warm")
	return nil
}

func (w *world) lease(id api.LeaseID) *state.Lease {
	w.t.Helper()
	l, ok := w.log.View().Lease(id)
	if !ok {
		w.t.Fatal("the lease is forgotten")
	}
	return l
}

func (w *world) nodeOf(l *state.Lease) api.NodeID {
	w.t.Helper()
	i, ok := w.log.View().Instance(l.Instance)
	if !ok {
		w.t.Fatalf("lease has instance %s, which is gone", l.Instance)
	}
	return i.Node
}

func (w *world) status(id api.NodeID) api.NodeState {
	n, ok := w.log.View().Node(id)
	if !ok {
		return "unknown"
	}
	return n.Status
}

func TestLeadFillsThePoolThroughACheckpoint(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(6)
		defer w.lead(1)()
		w.warm(6, 15*time.Second)
		perNode := map[api.NodeID]int{}
		for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
			perNode[i.Node]++
			if i.Checkpoint != digestOf(i.Template) {
				t.Errorf("instance %s has checkpoint %q, want %q", i.ID, i.Checkpoint, digestOf(i.Template))
			}
		}
		if perNode["n1"] != 3 || perNode["n2"] != 3 {
			t.Errorf("instances per node: got %v, want 3 each", perNode)
		}
		if got := w.log.applied(state.KindStartBuild); got != 1 {
			t.Errorf("builds: got %d, want 1", got)
		}
		builder := w.agents[w.builder()]
		for id, a := range w.agents {
			if from, _, _ := a.history(); a != builder && (len(from) != 1 || from[0] != builder.url) {
				t.Errorf("%s fetched from %v, want once from the builder %s", id, from, builder.url)
			}
		}
		if got := w.rec.heardOf(); got != 6 {
			t.Errorf("recorder heard of %d warm instances, want 6", got)
		}
		w.eventually(time.Second, func() string {
			for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
				if !w.r.Confirmed(i.ID) || w.edge.upstream(i.Host) != i.Address {
					return fmt.Sprintf("the edge has no route of %s", i.ID)
				}
			}
			return ""
		})
		created := w.log.View().Revision()
		time.Sleep(time.Minute)
		if got := w.log.View().Revision(); got != created {
			t.Errorf("%d commands were proposed for a cluster at rest, want none", got-created)
		}
	})
}
