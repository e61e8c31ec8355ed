package simtest

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// acquire leases one shop at the leader.
func (w *world) acquire() api.Demo {
	w.t.Helper()
	d, _, err := w.servers[w.group.Leader(w.t)].Load().leases.Acquire(w.t.Context(), api.AcquireCall{Wait: 10 * time.Second})
	if err != nil {
		w.t.Fatalf("acquire: %v", err)
	}
	return d
}

// ready makes a world with a full pool.
func ready(t *testing.T, schedulers, nodes int) *world {
	t.Helper()
	w := newWorld(t, 1, schedulers, nodes)
	w.apply(warmTarget)
	w.within(patience, "the pool fills", func() error { return w.full(warmTarget) })
	return w
}

// TestThreeSchedulers is the whole job in one process: a template, its
// checkpoint, warm instances on both nodes, a lease through every scheduler.
func TestThreeSchedulers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ready(t, 3, 2)
		for _, h := range w.hosts {
			if got := len(h.left()); got != warmTarget/2 {
				t.Errorf("node %s has %d of %d instances, want half", h.id, got, warmTarget)
			}
		}
		leader := w.group.Leader(t)
		for i := range w.servers {
			_, _, err := w.servers[i].Load().leases.Acquire(t.Context(), api.AcquireCall{})
			if want := map[bool]api.Code{true: "", false: api.CodeNotLeader}[i == leader]; api.CodeOf(err) != want {
				t.Errorf("acquire at scheduler %d (the leader is %d): got %v, want code %q", i, leader, err, want)
			}
		}
		demo := w.acquire()
		w.group.WaitEqual(t)
		for i := range w.servers {
			got, stale, err := w.servers[i].Load().leases.Inspect(t.Context(), demo.ID)
			if err != nil || stale || got.URL != demo.URL || got.Credentials == nil || *got.Credentials != *demo.Credentials {
				t.Errorf("scheduler %d says %+v (stale %v), %v; want %+v", i, got, stale, err, demo)
			}
		}
	})
}

// TestNodeLost: the leases of a node that falls silent move under the same ID
// and URL, and the node gives up what it lost when it is back.
func TestNodeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ready(t, 3, 2)
		var demos []api.Demo
		for range 4 {
			demos = append(demos, w.acquire())
		}
		w.within(patience, "the pool is full again", func() error { return w.full(warmTarget) })
		w.hosts[0].cut(true)
		w.within(nodeGrace+10*time.Second, "every lease is served elsewhere", func() error {
			v := w.view()
			for _, d := range demos {
				l, _ := v.Lease(d.ID)
				i, ok := v.Instance(l.Instance)
				if !ok || i.Node == w.hosts[0].id || i.State != api.InstanceLeased {
					return fmt.Errorf("the lease of %s is still on the lost node", d.URL)
				}
				if l.Host != d.URL[len("http://"):] || l.Epoch < 1 {
					return fmt.Errorf("the lease of %s became %+v", d.URL, l)
				}
				if got := w.edge.upstream(l.Host); got != i.Address {
					return fmt.Errorf("the edge sends %s to %q, not %q", l.Host, got, i.Address)
				}
			}
			return nil
		})
		moved := 0
		for _, d := range demos {
			if l, _ := w.view().Lease(d.ID); l.Epoch == 2 {
				moved++
			}
		}
		if moved == 0 || moved == len(demos) {
			t.Errorf("%d of %d leases moved, want those of one of two nodes", moved, len(demos))
		}
		w.hosts[0].cut(false)
		w.within(patience, "the returned node holds only what is recorded", w.settled)
	})
}

// TestAgentRestart: containers outlive their agent, and no lease moves.
func TestAgentRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ready(t, 3, 1)
		demo := w.acquire()
		w.within(patience, "the pool is full again", func() error { return w.full(warmTarget) })
		before := w.hosts[0].left()
		w.hosts[0].kill()
		time.Sleep(20 * time.Second) // virtual
		w.hosts[0].boot(t)
		w.within(patience, "the cluster settles", w.settled)
		if got := w.hosts[0].left(); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("containers after the restart: got %v, want the same %v", got, before)
		}
		if l, _ := w.view().Lease(demo.ID); l.State != api.DemoActive || l.Epoch != 1 {
			t.Errorf("the lease became %+v, want it untouched", l)
		}
	})
}

// TestExpiry: a lease ends on time, and everything of it goes.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ready(t, 3, 1)
		demo := w.acquire()
		time.Sleep(time.Until(demo.ExpiresAt) - time.Second) // virtual
		if l, _ := w.view().Lease(demo.ID); l.State != api.DemoActive {
			t.Errorf("a second before its end the lease is %s, want active", l.State)
		}
		time.Sleep(2 * time.Second) // virtual
		if l, _ := w.view().Lease(demo.ID); l.State != api.DemoExpired {
			t.Errorf("a second after its end the lease is %s, want expired", l.State)
		}
		w.within(10*time.Second, "its container is gone and the pool full", w.settled)
	})
}

// TestLeaderCutOff: a leader that is alone grants nothing, and what its
// successor grants holds after healing.
func TestLeaderCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ready(t, 3, 2)
		old := w.group.Leader(t)
		w.group.Isolate(old)
		time.Sleep(2 * time.Second) // virtual
		if _, _, err := w.servers[old].Load().leases.Acquire(t.Context(), api.AcquireCall{}); err == nil {
			t.Error("the leader that was cut off leased a shop")
		}
		demo := w.acquire()
		if w.group.Leader(t) == old {
			t.Fatal("nobody succeeded the leader that was cut off")
		}
		w.group.Heal()
		w.within(patience, "the cluster settles", w.settled)
		if l, ok := w.view().Lease(demo.ID); !ok || l.State != api.DemoActive {
			t.Errorf("after healing the lease is %+v, want it active", l)
		}
	})
}
