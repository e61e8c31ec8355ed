package reconcile

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/placement"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// sketch builds views by commands.
type sketch struct {
	t   testing.TB
	v   *state.View
	now time.Time
	n   int
}

func newSketch(t testing.TB) *sketch { return &sketch{t: t, v: state.New(), now: epoch} }

func (s *sketch) apply(cmd state.Command) state.Result {
	s.t.Helper()
	r := s.try(cmd)
	if r.Refusal != nil {
		s.t.Fatalf("%s: %v", cmd.Kind(), r.Refusal)
	}
	return r
}

func (s *sketch) try(cmd state.Command) (r state.Result) {
	s.now = s.now.Add(time.Millisecond)
	s.v, r = state.Apply(s.v, s.now, cmd)
	return r
}

func (s *sketch) node(id api.NodeID, capacity int) {
	s.t.Helper()
	s.apply(state.PutNode{Node: state.Node{ID: id, URL: "http://10.0.0.1:1", Address: "10.0.0.1", HostClass: "a", Capacity: capacity}})
}

func (s *sketch) template(name api.TemplateName, warm int) *state.Template {
	s.t.Helper()
	s.n++ // another image is another revision
	return s.apply(state.PutTemplate{Spec: api.Template{Name: name, Image: fmt.Sprint(s.n), Pool: api.Pool{Warm: warm}}}).Template
}

func (s *sketch) create(t *state.Template, node api.NodeID) *state.Instance {
	s.t.Helper()
	s.n++
	return s.apply(state.CreateInstance{
		ID: api.InstanceID(fmt.Sprintf("i-%d", s.n)), Template: t.Ref(), Node: node, Host: fmt.Sprintf("h-%d.demo.test", s.n),
	}).Instance
}

func (s *sketch) warm(t *state.Template, node api.NodeID) *state.Instance {
	s.t.Helper()
	return s.apply(state.WarmInstance{ID: s.create(t, node).ID, Address: "10.0.0.1:8080"}).Instance
}

func (s *sketch) leased(t *state.Template, node api.NodeID, ttl time.Duration) *state.Lease {
	s.t.Helper()
	i := s.warm(t, node)
	s.n++
	return s.apply(state.ClaimLease{
		Lease: api.LeaseID(fmt.Sprintf("l-%d", s.n)), Instance: i.ID, InstanceRevision: i.Revision,
		TTL: api.Duration(ttl), MaxTTL: api.Duration(ttl),
	}).Lease
}

func (s *sketch) execute(actions []action) {
	s.t.Helper()
	for _, a := range actions {
		s.apply(a.cmd)
	}
}

func (s *sketch) facts() poolFacts {
	n := s.n + 1_000_000
	return poolFacts{
		now: s.now,
		load: func(v *state.View, id api.NodeID, _ api.TemplateRef) placement.NodeLoad {
			return placement.NodeLoad{Pending: v.NodeCounts(id).Pending}
		},
		newID:   func() api.InstanceID { n++; return api.InstanceID(fmt.Sprintf("i-%d", n)) },
		newHost: func() string { return fmt.Sprintf("h-%d.demo.test", n) },
	}
}

// randomPool is a cluster in some state of its life.
func randomPool(t testing.TB, rng *rand.Rand) *sketch {
	s := newSketch(t)
	nodes := 1 + rng.IntN(5)
	for n := range nodes {
		s.node(api.NodeID(fmt.Sprintf("n%d", n)), 2+rng.IntN(20))
	}
	for k := range 1 + rng.IntN(3) {
		name := api.TemplateName(fmt.Sprintf("t%d", k))
		for range 1 + rng.IntN(3) {
			tmpl := s.template(name, rng.IntN(12))
			for range rng.IntN(8) {
				node := api.NodeID(fmt.Sprintf("n%d", rng.IntN(nodes)))
				if n, _ := s.v.Node(node); s.v.NodeCounts(node).Total() >= n.Capacity {
					continue
				}
				switch rng.IntN(5) {
				case 0:
					s.create(tmpl, node)
				case 1:
					s.leased(tmpl, node, time.Hour)
				case 2:
					i := s.warm(tmpl, node)
					s.apply(state.FailInstance{ID: i.ID, Revision: i.Revision, Reason: "test"})
				default:
					s.warm(tmpl, node)
				}
			}
		}
	}
	if rng.IntN(3) == 0 {
		s.apply(state.SetNodeStatus{Node: "n0", Status: api.NodeDown})
	}
	return s
}

// ofCurrent counts what counts towards the target.
func ofCurrent(v *state.View, t *state.Template) (warm, pending, oldWarm int) {
	for i := range v.InstancesOf(t.Spec.Name, api.InstanceWarm) {
		if i.Template.Revision == t.Revision {
			warm++
		} else {
			oldWarm++
		}
	}
	for i := range v.InstancesOf(t.Spec.Name, api.InstancePending) {
		if i.Template.Revision == t.Revision {
			pending++
		}
	}
	return warm, pending, oldWarm
}

func TestPoolPlanProperties(t *testing.T) {
	for seed := range uint64(500) {
		s := randomPool(t, rand.New(rand.NewPCG(seed, 1)))
		before := s.v
		plan := planPool(s.v, s.facts())
		if diff := cmp.Diff(plan.actions, planPool(s.v, s.facts()).actions, cmp.AllowUnexported(action{})); diff != "" {
			t.Fatalf("seed %d: equal input gave two plans: %s", seed, diff)
		}
		s.execute(plan.actions) // nothing is refused: no leased instance, no unknown one
		for tmpl := range s.v.Templates() {
			name, target := tmpl.Spec.Name, tmpl.Spec.Pool.Warm
			warm, pending, old := ofCurrent(s.v, tmpl)
			if warm+pending > target {
				t.Errorf("seed %d: %d of the current revision are warm and %d pending, above the target %d", seed, warm, pending, target)
			}
			had, has := before.TemplateCounts(name), s.v.TemplateCounts(name)
			if has.Leased != had.Leased {
				t.Errorf("seed %d: leased instances went from %d to %d", seed, had.Leased, has.Leased)
			}
			least := min(had.Warm, target)
			if full(s.v) {
				least-- // the one that makes room
			}
			if has.Warm < least {
				t.Errorf("seed %d: warm instances went from %d to %d, below the target %d", seed, had.Warm, has.Warm, target)
			}
			if warm+old > max(target, warm) && len(plan.actions) < poolBatch {
				t.Errorf("seed %d: %d warm and %d old ones stay above the target %d", seed, warm, old, target)
			}
		}
		for n := range s.v.Nodes() {
			had, has := before.NodeCounts(n.ID), s.v.NodeCounts(n.ID)
			if has.Total() > max(had.Total(), n.Capacity) || n.Status == api.NodeDown && has.Total() > had.Total() {
				t.Errorf("seed %d: node %s has %d instances of %d, and is %s", seed, n.ID, has.Total(), n.Capacity, n.Status)
			}
			if has.Pending > max(had.Pending, startsPerNode) {
				t.Errorf("seed %d: node %s has %d starts under way", seed, n.ID, has.Pending)
			}
		}
		if len(plan.actions) < poolBatch {
			if again := planPool(s.v, s.facts()); len(again.actions) != 0 {
				t.Errorf("seed %d: a second plan has %d actions, want none: %+v", seed, len(again.actions), again.actions)
			}
		}
	}
}

func full(v *state.View) bool {
	p := poolPlanner{v: v}
	return p.full()
}

func TestPoolSpreads(t *testing.T) {
	s := newSketch(t)
	for n := range 4 {
		s.node(api.NodeID(fmt.Sprintf("n%d", n)), 100)
	}
	s.template("shop", 10)
	s.execute(planPool(s.v, s.facts()).actions)
	for n := range s.v.Nodes() {
		if got := s.v.NodeCounts(n.ID).Pending; got < 2 || got > 3 {
			t.Errorf("node %s: got %d instances, want 2 or 3 of 10 on 4 nodes", n.ID, got)
		}
	}
}

func TestPoolEndsTheOldestRevisionFirst(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 100)
	first := s.warm(s.template("shop", 1), "n1")
	second := s.warm(s.template("shop", 1), "n1")
	third := s.warm(s.template("shop", 1), "n1")
	plan := planPool(s.v, s.facts())
	var got []api.InstanceID
	for _, a := range plan.actions {
		got = append(got, a.cmd.(state.EndInstance).ID)
	}
	if want := []api.InstanceID{first.ID, second.ID}; !cmp.Equal(got, want) {
		t.Errorf("ended %v, want %v and %s kept", got, want, third.ID)
	}
}

func TestPoolGrowsForBrokenLeases(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 100)
	s.template("shop", 1)
	f := s.facts()
	f.demand = map[api.TemplateName]int{"shop": 2}
	if got := len(planPool(s.v, f).actions); got != 3 {
		t.Errorf("starts: got %d, want 1 for the target and 2 for leases", got)
	}
}

func TestPoolSaysWhyItDoesNotGrow(t *testing.T) {
	s := newSketch(t)
	s.template("shop", 1)
	if got, want := planPool(s.v, s.facts()).stuck["shop"], "no node has joined the cluster yet"; got != want {
		t.Errorf("reason: got %q, want %q", got, want)
	}
}
