package reconcile

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func trusted(api.NodeID) bool { return false }

// rebind plans for all broken leases, which were first seen at since.
func (s *sketch) rebind(since time.Time, suspect func(api.NodeID) bool) moves {
	s.t.Helper()
	leases := brokenLeases(s.v)
	waiting := map[api.LeaseID]time.Time{}
	for id := range leases {
		waiting[id] = since
	}
	return planRebind(s.v, leases, waiting, suspect, clocks{decide: s.now, local: s.now})
}

func TestRebindProperties(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		s := randomPool(t, rng)
		for i := range s.v.Instances() {
			if i.State == api.InstanceLeased && rng.IntN(3) == 0 {
				s.apply(state.FailInstance{ID: i.ID, Revision: i.Revision, Reason: "test"})
			}
		}
		before := s.v
		broken := brokenLeases(s.v)
		all := map[api.LeaseID]*state.Lease{}
		scanLeases(s.v, all)
		if diff := cmp.Diff(all, broken); diff != "" {
			t.Fatalf("seed %d: a scan finds other leases (-scan +quick): %s", seed, diff)
		}
		plan := s.rebind(s.now, trusted)
		s.execute(plan.actions)
		for _, a := range plan.actions {
			old, _ := before.Lease(a.lease)
			now, _ := s.v.Lease(a.lease)
			i, _ := s.v.Instance(now.Instance)
			if n, _ := s.v.Node(i.Node); now.Epoch != old.Epoch+1 || i.State != api.InstanceLeased || n.Status != api.NodeUp {
				t.Errorf("seed %d: a lease went to epoch %d on an instance that is %s on a node that is %s", seed, now.Epoch, i.State, n.Status)
			}
		}
		left := 0
		for _, n := range plan.demand {
			left += n
		}
		if got := len(brokenLeases(s.v)); got != left || len(broken) != left+len(plan.actions) {
			t.Errorf("seed %d: %d leases stay broken of %d after %d moves; demand says %d", seed, got, len(broken), len(plan.actions), left)
		}
		if again := s.rebind(s.now, trusted); len(again.actions) != 0 {
			t.Errorf("seed %d: a second plan moves %d leases, want none", seed, len(again.actions))
		}
	}
}

func TestRebindWaitsThenLoses(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 10)
	s.node("n2", 10)
	tmpl := s.template("shop", 1)
	s.leased(tmpl, "n1", time.Hour)
	s.warm(tmpl, "n2")
	s.apply(state.SetNodeStatus{Node: "n1", Status: api.NodeDown})
	doubted := func(id api.NodeID) bool { return id == "n2" }

	if got := s.rebind(s.now, doubted); len(got.actions) != 0 || got.demand["shop"] != 1 {
		t.Errorf("with a suspect node only: got %v and demand %v, want to wait for 1", kindsOf(got.actions), got.demand)
	}
	late := s.now.Add(-loseAfter)
	if got, want := kindsOf(s.rebind(late, doubted).actions), []state.Kind{state.KindLoseLease}; !cmp.Equal(got, want) {
		t.Errorf("after %s: got %v, want %v", loseAfter, got, want)
	}
	if got, want := kindsOf(s.rebind(late, trusted).actions), []state.Kind{state.KindRebindLease}; !cmp.Equal(got, want) {
		t.Errorf("with a warm instance: got %v, want %v", got, want)
	}
	s.now = s.now.Add(2 * time.Hour)
	if got := s.rebind(late, trusted); len(got.actions) != 0 || len(got.demand) != 0 {
		t.Errorf("for a lease that is over: got %v and demand %v, want nothing", kindsOf(got.actions), got.demand)
	}
}

func TestLeaseWithoutInstanceIsFoundByTheScan(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 10)
	l := s.leased(s.template("shop", 1), "n1", time.Hour)
	i, _ := s.v.Instance(l.Instance)
	s.apply(state.FailInstance{ID: i.ID, Revision: i.Revision, Reason: "test"})
	s.apply(state.RemoveInstance{ID: i.ID})
	found := brokenLeases(s.v)
	if len(found) != 0 {
		t.Fatalf("found %d leases without a trace of their instance", len(found))
	}
	if scanLeases(s.v, found); found[l.ID] == nil {
		t.Error("the scan did not find the lease")
	}
}

func TestSweep(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 10)
	s.node("n2", 10)
	tmpl := s.template("shop", 1)
	s.create(tmpl, "n1")
	s.warm(tmpl, "n1")
	lease := s.leased(tmpl, "n1", time.Hour)
	s.warm(tmpl, "n2")
	if got := planSweep(s.v, 10); len(got) != 0 {
		t.Fatalf("nodes are up: got %v, want nothing", kindsOf(got))
	}
	s.apply(state.SetNodeStatus{Node: "n1", Status: api.NodeDown})
	if got := planSweep(s.v, 1); len(got) != 1 {
		t.Errorf("a round of at most 1 has %d actions", len(got))
	}
	s.execute(planSweep(s.v, 10))
	s.execute(planSweep(s.v, 10))
	if got, want := s.v.NodeCounts("n1"), (state.Counts{Leased: 1}); got != want {
		t.Errorf("n1: got %+v, want %+v", got, want)
	}
	s.apply(state.ReleaseLease{Lease: lease.ID, Revision: lease.Revision})
	s.execute(planSweep(s.v, 10))
	if got := s.v.NodeCounts("n1").Total() + len(planSweep(s.v, 10)); got != 0 {
		t.Errorf("%d instances and actions are left for n1, want none", got)
	}
	if got := s.v.NodeCounts("n2").Warm; got != 1 {
		t.Errorf("n2: got %d warm, want 1", got)
	}
}

func TestExpiryPlan(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 10)
	tmpl := s.template("shop", 1)
	var leases []*state.Lease
	for n := range 4 {
		leases = append(leases, s.leased(tmpl, "n1", time.Duration(n+1)*time.Minute))
	}
	due, next := planExpiry(s.v, leases[1].ExpiresAt, 10)
	want := []state.LeaseRevision{{Lease: leases[0].ID, Revision: 1}, {Lease: leases[1].ID, Revision: 1}}
	if diff := cmp.Diff(want, due); diff != "" || !next.Equal(leases[2].ExpiresAt) {
		t.Errorf("due (-want +got): %s next: got %s, want %s", diff, next, leases[2].ExpiresAt)
	}
	if due, _ := planExpiry(s.v, leases[3].ExpiresAt, 3); len(due) != 3 {
		t.Errorf("a batch of at most 3 has %d leases", len(due))
	}
}

func TestBuildPlan(t *testing.T) {
	s := newSketch(t)
	put := func(id api.NodeID, class api.HostClass, restores bool) {
		s.apply(state.PutNode{Node: state.Node{ID: id, URL: "http://10.0.0.1:1", HostClass: class, Restores: restores, Capacity: 10}})
	}
	put("n1", "a", true)
	put("n2", "a", true)
	put("n3", "b", true)
	put("n4", "c", false)
	tmpl := s.template("shop", 1)
	s.warm(tmpl, "n1")
	plan := func(now time.Time) (got []string) {
		for _, a := range planBuilds(s.v, trusted, now) {
			switch cmd := a.cmd.(type) {
			case state.StartBuild:
				got = append(got, fmt.Sprintf("%s@%d on %s", cmd.Key.HostClass, cmd.Attempt, cmd.Builder))
			case state.RemoveCheckpoint:
				got = append(got, fmt.Sprintf("remove %s of %d", cmd.Key.HostClass, cmd.Key.Template.Revision))
			}
		}
		return got
	}
	check := func(what string, now time.Time, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, plan(now)); diff != "" {
			t.Errorf("%s: plan (-want +got): %s", what, diff)
		}
	}
	check("at first", s.now, "a@1 on n2", "b@1 on n3")
	s.execute(planBuilds(s.v, trusted, s.now))
	check("while they run", s.now)

	a := state.CheckpointKey{Template: tmpl.Ref(), HostClass: "a"}
	s.apply(state.FinishBuild{Key: a, Attempt: 1, Reason: "test"})
	check("right after a failure", s.now.Add(14*time.Second))
	check("after the backoff", s.now.Add(16*time.Second), "a@2 on n1")
	s.now = s.now.Add(16 * time.Second)
	s.execute(planBuilds(s.v, trusted, s.now))
	s.apply(state.SetNodeStatus{Node: "n1", Status: api.NodeDown})
	check("once the builder is down", s.now, "a@3 on n2")
	s.execute(planBuilds(s.v, trusted, s.now))
	s.apply(state.FinishBuild{Key: a, Attempt: 3, Digest: "abc"})

	i := s.apply(state.CreateInstance{ID: "i-x", Template: tmpl.Ref(), Node: "n2", Checkpoint: "abc", Host: "x.demo.test"}).Instance
	s.template("shop", 1)
	check("a new revision", s.now, "a@1 on n2", "b@1 on n3", "remove b of 1")
	s.apply(state.EndInstance{ID: i.ID, Revision: i.Revision})
	s.apply(state.RemoveInstance{ID: i.ID})
	check("when nobody uses the old one", s.now, "a@1 on n2", "b@1 on n3", "remove a of 1", "remove b of 1")
	s.execute(planBuilds(s.v, trusted, s.now))
	check("at last", s.now)
}
