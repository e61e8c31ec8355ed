package reconcile_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestLeaseExpiresInTime(t *testing.T) {
	run(t, []api.NodeID{"n1"}, func(w *world) {
		w.template(2)
		defer w.lead(1)()
		w.warm(2, 15*time.Second)
		lease := w.claim(time.Minute)
		time.Sleep(30 * time.Second)
		renewed := w.log.must(t, state.RenewLease{Lease: lease.ID, Revision: lease.Revision, ExpiresAt: lease.ExpiresAt.Add(30 * time.Second)}).Lease
		w.eventually(time.Second, func() string {
			for _, i := range w.agents["n1"].wanted() {
				if i.ID == lease.Instance && i.ExpiresIn.D() > 55*time.Second {
					return ""
				}
			}
			return "the node has not heard of the extension"
		})
		time.Sleep(time.Until(renewed.ExpiresAt) - time.Millisecond)
		if got := w.lease(lease.ID).State; got != api.DemoActive {
			t.Fatalf("the lease is %s before its time", got)
		}
		w.eventually(100*time.Millisecond, func() string {
			if got := w.lease(lease.ID).State; got != api.DemoExpired {
				return "the lease is " + string(got)
			}
			return ""
		})
		w.eventually(time.Second, func() string {
			if served, _, _ := w.edge.seen(); !slices.Contains(served.Ended, lease.Host) {
				return "the edge does not know that the demo ended"
			}
			return ""
		})
		w.eventually(time.Second, func() string {
			if c := w.agents["n1"].containers(); c[api.InstanceLeased] != 0 || w.counts().Ending != 0 {
				return fmt.Sprintf("the node has %v, the state %+v", c, w.counts())
			}
			return ""
		})
		if w.rec.recorded(lease.ID) != 1 {
			t.Errorf("the end was recorded %d times, want once", w.rec.recorded(lease.ID))
		}
		w.eventually(endedKept+35*time.Second, func() string {
			if _, ok := w.log.View().Lease(lease.ID); ok {
				return "the ended lease is remembered for ever"
			}
			return ""
		})
		w.eventually(2*time.Second, func() string {
			if served, _, _ := w.edge.seen(); len(served.Ended) != 0 {
				return "the edge names demos that are forgotten"
			}
			return ""
		})
	})
}

func (a *fakeAgent) wanted() []api.DesiredInstance {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.desired.Instances
}

func TestManyLeasesExpireTogether(t *testing.T) {
	run(t, []api.NodeID{"n1"}, func(w *world) {
		const many = 300
		w.agents["n1"].node.Capacity, w.agents["n1"].startTook = 2*many, 10*time.Millisecond
		w.template(many)
		defer w.lead(1)()
		w.warm(many, time.Minute)
		var last *state.Lease
		for range many {
			last = w.claim(time.Minute)
		}
		time.Sleep(time.Until(last.ExpiresAt) + time.Second)
		if got := w.log.View().ActiveLeases(); got != 0 {
			t.Errorf("%d leases outlived their time", got)
		}
		if got := w.log.applied(state.KindExpireLeases); got != 2 {
			t.Errorf("%d leases were ended by %d commands, want 2 batches", many, got)
		}
	})
}

func TestLoopsSurviveALogThatFails(t *testing.T) {
	run(t, []api.NodeID{"n1"}, func(w *world) {
		w.log.failWith(api.Errorf(api.CodeUnavailable, "the disk is full"))
		defer w.lead(1)()
		time.Sleep(20 * time.Second)
		if got := w.log.View().Revision(); got != 0 {
			t.Fatalf("revision: got %d, want 0", got)
		}
		w.log.failWith(nil)
		w.template(2)
		w.warm(2, 20*time.Second)
		lease := w.claim(10 * time.Second)
		w.log.failWith(api.Errorf(api.CodeUncertain, "nobody knows"))
		time.Sleep(30 * time.Second)
		w.log.failWith(nil)
		w.eventually(3*time.Second, func() string {
			if got := w.lease(lease.ID).State; got != api.DemoExpired {
				return "the lease is " + string(got)
			}
			return ""
		})
		w.warm(2, 10*time.Second)
	})
}

func TestEdgeIsKeptEqual(t *testing.T) {
	run(t, []api.NodeID{"n1"}, func(w *world) {
		w.template(3)
		defer w.lead(2)()
		w.warm(3, 15*time.Second)
		time.Sleep(time.Second)
		first, _, _ := w.edge.seen()
		var id api.InstanceID
		for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
			id = i.ID
		}
		if !w.r.Confirmed(id) || len(first.Routes) != 3 || first.Term != 2 {
			t.Fatalf("confirmed %v, %d routes of term %d; want true, 3, 2", w.r.Confirmed(id), len(first.Routes), first.Term)
		}
		if got := w.r.Edges(); len(got) != 1 || got[0].ID != "e1" || !got[0].Healthy {
			t.Errorf("edges: got %+v, want e1, healthy", got)
		}

		w.edge.set(func(e *fakeEdge) { e.table = api.RouteTable{} }) // it restarts empty
		w.eventually(2100*time.Millisecond, func() string {
			if w.edge.upstream(first.Routes[0].Host) == "" {
				return "the edge is still empty"
			}
			return ""
		})

		w.edge.set(func(e *fakeEdge) { e.err = fmt.Errorf("connection refused") })
		time.Sleep(3 * time.Second)
		if w.r.Confirmed(id) {
			t.Error("a route is confirmed although no edge works")
		}
		w.edge.set(func(e *fakeEdge) { e.err = nil })
		time.Sleep(3 * time.Second)
		if !w.r.Confirmed(id) {
			t.Error("the edge works again, but confirms nothing")
		}

		_, changes, _ := w.edge.seen()
		lease := w.claim(time.Minute)
		time.Sleep(50 * time.Millisecond)
		if _, now, _ := w.edge.seen(); now != changes || !w.r.Confirmed(lease.Instance) {
			t.Errorf("a lease cost %d pushes, want none", now-changes)
		}
		w.warm(3, 10*time.Second)
		_, _, syncs := w.edge.seen()
		for n := 1; n < len(syncs); n++ {
			if gap := syncs[n].Sub(syncs[n-1]); gap < 100*time.Millisecond || gap > 2100*time.Millisecond {
				t.Errorf("between two pushes: %s, want 100ms to 2s", gap)
			}
		}
	})
}
