package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestLeasesOfASilentNodeMove(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(4)
		defer w.lead(1)()
		w.warm(4, 15*time.Second)
		var leases []*state.Lease
		for range 4 {
			leases = append(leases, w.claim(10*time.Minute))
		}
		w.warm(4, 15*time.Second)

		w.agents["n1"].set(func(a *fakeAgent) { a.mode = silent })
		cut := time.Now()
		w.eventually(4*time.Second, func() string {
			if !w.r.Suspect("n1") {
				return "nobody suspects n1"
			}
			return ""
		})
		w.eventually(nodeGrace, func() string {
			if w.status("n1") != api.NodeDown {
				return "n1 is " + string(w.status("n1"))
			}
			return ""
		})
		if took := time.Since(cut); took < nodeGrace-probeSlack {
			t.Errorf("n1 was given up after %s, want not before %s", took, nodeGrace)
		}
		w.eventually(2*time.Second, func() string {
			for _, old := range leases {
				now := w.lease(old.ID)
				if w.nodeOf(now) == "n1" {
					return "a lease is still on n1"
				}
				i, _ := w.log.View().Instance(now.Instance)
				if got := w.edge.upstream(old.Host); got != i.Address {
					return fmt.Sprintf("host %s goes to %q, want %q", old.Host, got, i.Address)
				}
			}
			return ""
		})
		moved := 0
		for _, old := range leases {
			now := w.lease(old.ID)
			if now.State != api.DemoActive || now.Host != old.Host {
				t.Errorf("lease is %s at %s, want active at %s", now.State, now.Host, old.Host)
			}
			if now.Instance != old.Instance {
				moved++
				if now.Epoch != 2 || w.rec.recorded(old.ID) == 0 {
					t.Errorf("a moved lease has epoch %d and was recorded %d times, want epoch 2 and a record", now.Epoch, w.rec.recorded(old.ID))
				}
			}
		}
		if moved != 2 {
			t.Errorf("%d leases moved, want the 2 that were on n1", moved)
		}
		w.warm(4, 15*time.Second) // on n2 alone

		w.agents["n1"].set(func(a *fakeAgent) { a.mode = answers })
		w.eventually(5*time.Second, func() string {
			if got := w.agents["n1"].containers(); w.status("n1") != api.NodeUp || len(got) != 0 {
				return fmt.Sprintf("n1 is %s with %v, want up and empty", w.status("n1"), got)
			}
			return ""
		})
		if _, dropped, _ := w.agents["n1"].history(); len(dropped) != 2 {
			t.Errorf("n1 dropped %d leased containers, want the 2 that moved", len(dropped))
		}
	})
}

// probeSlack is what the last success may have been before the cut.
const probeSlack = 2 * time.Second

func TestNodeThatRefusesKeepsItsLeases(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(2)
		defer w.lead(1)()
		w.warm(2, 15*time.Second)
		lease := w.claim(time.Hour)
		node := w.nodeOf(lease)
		w.agents[node].set(func(a *fakeAgent) { a.mode = refuses })
		time.Sleep(40 * time.Second)
		if !w.r.Suspect(node) || w.status(node) != api.NodeUp {
			t.Errorf("node: got suspect %v and %s, want suspect and up", w.r.Suspect(node), w.status(node))
		}
		if now := w.lease(lease.ID); now.Epoch != 1 {
			t.Errorf("the lease moved to epoch %d while its container ran", now.Epoch)
		}
		w.agents[node].restart()
		w.agents[node].set(func(a *fakeAgent) { a.mode = answers })
		time.Sleep(5 * time.Second)
		_, dropped, _ := w.agents[node].history()
		if now := w.lease(lease.ID); w.r.Suspect(node) || now.Epoch != 1 || len(dropped) != 0 {
			t.Errorf("after the restart: got suspect %v, epoch %d, dropped %v; want all as before", w.r.Suspect(node), now.Epoch, dropped)
		}

		w.agents[node].set(func(a *fakeAgent) { a.mode = refuses })
		w.eventually(64*time.Second, func() string {
			if w.status(node) != api.NodeDown || w.lease(lease.ID).Epoch != 2 {
				return "an agent that stays away is still counted on"
			}
			return ""
		})
	})
}

func TestGossipOnlyShortensDoubt(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(2)
		defer w.lead(1)()
		w.warm(2, 15*time.Second)
		dead := func(m []reconcile.Member) []reconcile.Member {
			for n := range m {
				m[n].Alive = false
			}
			return m
		}
		w.members.set(dead)
		time.Sleep(time.Minute)
		if w.r.Suspect("n1") || w.status("n1") != api.NodeUp {
			t.Errorf("n1 answers, but is suspect %v and %s", w.r.Suspect("n1"), w.status("n1"))
		}
		w.members.set(func(m []reconcile.Member) []reconcile.Member { m[0].Alive = true; return m })
		time.Sleep(time.Second)
		w.agents["n1"].set(func(a *fakeAgent) { a.mode = silent })
		w.members.set(dead)
		w.eventually(1100*time.Millisecond, func() string {
			if !w.r.Suspect("n1") {
				return "nobody suspects n1"
			}
			return ""
		})
	})
}

func TestNodeThatGossipForgotIsWatchedUntilDown(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(2)
		defer w.lead(1)()
		w.warm(2, 15*time.Second)
		w.members.set(func(m []reconcile.Member) []reconcile.Member { return m[1:] })
		time.Sleep(time.Minute)
		if got := w.status("n1"); got != api.NodeUp {
			t.Fatalf("n1 answers, but is %s", got)
		}
		w.agents["n1"].set(func(a *fakeAgent) { a.mode = silent })
		w.eventually(nodeGrace+3*time.Second, func() string {
			if w.status("n1") != api.NodeDown || len(onNode(w, "n1")) != 0 {
				return fmt.Sprintf("n1 is %s with %v", w.status("n1"), onNode(w, "n1"))
			}
			return ""
		})
		w.warm(2, 15*time.Second)
	})
}

func onNode(w *world, id api.NodeID) (all []api.InstanceID) {
	for i := range w.log.View().InstancesOn(id) {
		all = append(all, i.ID)
	}
	return all
}

func TestLeaseOfADeadContainerMoves(t *testing.T) {
	run(t, []api.NodeID{"n1"}, func(w *world) {
		w.template(1)
		defer w.lead(1)()
		w.warm(1, 15*time.Second)
		lease := w.claim(time.Hour)
		w.warm(1, 15*time.Second)
		w.agents["n1"].set(func(a *fakeAgent) {
			i := a.things[lease.Instance]
			i.State, i.Reason = api.InstanceFailed, "its container exited"
		})
		w.eventually(time.Second, func() string {
			if now := w.lease(lease.ID); now.Epoch != 2 || now.Instance == lease.Instance {
				return "the lease has not moved"
			}
			if _, ok := w.log.View().Instance(lease.Instance); ok {
				return "the dead instance is still on record"
			}
			return ""
		})
	})
}

func TestLeaseWithoutReplacementIsLost(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(1)
		defer w.lead(1)()
		w.warm(1, 15*time.Second)
		lease := w.claim(time.Hour)
		other := w.claimAllOnOneNode(lease)
		for _, a := range w.agents {
			a.set(func(a *fakeAgent) { a.failStart = "no memory" })
		}
		w.agents[w.nodeOf(lease)].set(func(a *fakeAgent) { a.mode = silent })
		time.Sleep(100 * time.Second)
		if got := w.lease(lease.ID).State; got != api.DemoActive {
			t.Fatalf("the lease is %s, want active while there is hope", got)
		}
		w.eventually(40*time.Second, func() string {
			if got := w.lease(lease.ID).State; got != api.DemoLost {
				return "the lease is " + string(got)
			}
			return ""
		})
		if w.rec.recorded(lease.ID) == 0 {
			t.Error("the loss was not recorded")
		}
		if got := w.lease(other).State; got != api.DemoActive {
			t.Errorf("the other lease is %s, want active", got)
		}
	})
}

func TestPoolGrowsForALeaseThatHasToMove(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(1)
		defer w.lead(1)()
		w.warm(1, 15*time.Second)
		lease := w.claim(time.Hour)
		w.template(0) // another revision, and no pool at all
		w.warm(0, 15*time.Second)
		w.agents[w.nodeOf(lease)].set(func(a *fakeAgent) { a.mode = silent })
		w.eventually(nodeGrace+8*time.Second, func() string {
			if now := w.lease(lease.ID); now.Epoch != 2 {
				return "the lease has not moved"
			}
			return ""
		})
		w.warm(0, time.Second)
	})
}

// claimAllOnOneNode takes the target down to nothing, so that no instance is
// warm, after another lease was made on the other node.
func (w *world) claimAllOnOneNode(first *state.Lease) api.LeaseID {
	w.t.Helper()
	for range 10 {
		w.warm(1, 15*time.Second)
		l := w.claim(time.Hour)
		if w.nodeOf(l) != w.nodeOf(first) {
			w.template(0)
			w.warm(0, 15*time.Second)
			return l.ID
		}
	}
	w.t.Fatal("all instances are on one node")
	return ""
}

func TestStrangerAtTheAddressOfANodeIsNotBelieved(t *testing.T) {
	run(t, []api.NodeID{"n1"}, func(w *world) {
		w.agents["n1"].node.ID = "n9"
		defer w.lead(1)()
		time.Sleep(10 * time.Second)
		if n := w.status("n9"); n != "unknown" || w.status("n1") != "unknown" || !w.r.Suspect("n1") {
			t.Errorf("got n1 %s, n9 %s; want neither on record and n1 suspect", w.status("n1"), n)
		}
	})
}
