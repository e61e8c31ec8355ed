package reconcile_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestFailedBuildFallsBackToColdStarts(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		for _, a := range w.agents {
			a.failBuild = "CRIU says no"
		}
		w.template(3)
		defer w.lead(1)()
		w.warm(3, 15*time.Second)
		for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
			if i.Checkpoint != "" {
				t.Errorf("instance %s has checkpoint %s, want a cold one", i.ID, i.Checkpoint)
			}
		}
		for _, a := range w.agents {
			a.set(func(a *fakeAgent) { a.failBuild = "" })
		}
		w.eventually(25*time.Second, func() string {
			for c := range w.log.View().Checkpoints() {
				if c.State == api.CheckpointReady && c.Attempt == 2 {
					return ""
				}
			}
			return "the build was not tried again"
		})
		if got := w.counts().Warm; got != 3 {
			t.Errorf("warm instances: got %d, want still 3", got)
		}
	})
}

func TestBuildMovesFromADeadBuilder(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		for _, a := range w.agents {
			a.buildTook = time.Hour
		}
		w.template(2)
		defer w.lead(1)()
		time.Sleep(3 * time.Second)
		first := w.builder()
		for _, a := range w.agents {
			a.set(func(a *fakeAgent) { a.buildTook = time.Second })
		}
		w.agents[first].set(func(a *fakeAgent) { a.mode = silent })
		w.warm(2, 30*time.Second)
		if second := w.builder(); second == first {
			t.Errorf("%s built, although it is dead", second)
		}
	})
}

func (w *world) builder() api.NodeID {
	w.t.Helper()
	for c := range w.log.View().Checkpoints() {
		return c.Builder
	}
	w.t.Fatal("nobody builds")
	return ""
}

func TestRolloutKeepsThePoolWarm(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(4)
		defer w.lead(1)()
		w.warm(4, 15*time.Second)
		spec := api.Template{Name: "shop", Image: "shop:2", Port: 80, Pool: api.Pool{Warm: 4}}.WithDefaults()
		w.log.must(t, state.PutTemplate{Spec: spec})
		w.eventually(30*time.Second, func() string {
			if c := w.counts(); c.Warm < 4 {
				t.Fatalf("%d instances are warm during the rollout, want 4 at least", c.Warm)
			}
			current := 0
			for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
				if i.Template.Revision == 2 {
					current++
				}
			}
			checkpoints := 0
			for range w.log.View().Checkpoints() {
				checkpoints++
			}
			if c := w.counts(); current != 4 || c.Total() != 4 || checkpoints != 1 {
				return fmt.Sprintf("%d of the new revision are warm, %+v, %d checkpoints; want 4 of 4, and 1", current, c, checkpoints)
			}
			return ""
		})
		w.template(0) // revision 3
		w.eventually(5*time.Second, func() string {
			if c := w.counts(); c.Total() != 0 {
				return fmt.Sprintf("instances are %+v, want none", c)
			}
			return ""
		})
	})
}

func TestRolloutOnAFullNode(t *testing.T) {
	run(t, []api.NodeID{"n1"}, func(w *world) {
		w.agents["n1"].node.Capacity = 3
		w.template(3)
		defer w.lead(1)()
		w.warm(3, 15*time.Second)
		spec := api.Template{Name: "shop", Image: "shop:2", Port: 80, Pool: api.Pool{Warm: 3}}.WithDefaults()
		w.log.must(t, state.PutTemplate{Spec: spec})
		w.eventually(30*time.Second, func() string {
			if c := w.counts(); c.Warm < 2 {
				t.Fatalf("%d instances are warm, want never more than one missing", c.Warm)
			}
			for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
				if i.Template.Revision != 2 {
					return "an instance of the old revision is left"
				}
			}
			if c := w.counts(); c.Warm != 3 {
				return fmt.Sprintf("instances are %+v", c)
			}
			return ""
		})
	})
}

func TestNodeThatFailsStartsIsSetAside(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.agents["n1"].failStart = "no memory"
		w.template(6)
		defer w.lead(1)()
		w.warm(6, 60*time.Second)
		time.Sleep(10 * time.Minute)
		failed := w.log.applied(state.KindFailInstance)
		if failed == 0 || failed > 20 {
			t.Errorf("n1 failed %d starts, want some, and not many", failed)
		}
	})
}

func TestStateOutlivesItsLeader(t *testing.T) {
	run(t, []api.NodeID{"n1", "n2"}, func(w *world) {
		w.template(4)
		stop := w.lead(1)
		w.warm(4, 15*time.Second)
		short, long := w.claim(20*time.Second), w.claim(time.Hour)
		w.warm(4, 15*time.Second)
		stop()
		if w.r.Edges() != nil || w.r.Suspect("n1") || w.r.Confirmed(long.Instance) {
			t.Error("a reconciler that does not lead has opinions")
		}
		created := w.log.applied(state.KindCreateInstance)
		time.Sleep(time.Until(short.ExpiresAt) + 5*time.Second)

		defer w.lead(3)()
		time.Sleep(5 * time.Second)
		if got := w.lease(short.ID); got.State != api.DemoActive {
			t.Errorf("the lease that ran out while nobody led is %s, want active in its grace", got.State)
		}
		if w.rec.recorded(short.ID) == 0 {
			t.Error("the grace was not recorded")
		}
		w.eventually(6*time.Second, func() string {
			if got := w.lease(short.ID).State; got != api.DemoExpired {
				return "the lease is " + string(got)
			}
			return ""
		})
		time.Sleep(5 * time.Second)
		if got := w.lease(long.ID); got.Epoch != 1 || got.State != api.DemoActive {
			t.Errorf("the long lease is %s with epoch %d, want active and never moved", got.State, got.Epoch)
		}
		if got := w.log.applied(state.KindCreateInstance); got != created || w.counts().Warm != 4 {
			t.Errorf("the new leader created %d instances and has %d warm, want none and 4", got-created, w.counts().Warm)
		}
		for id, a := range w.agents {
			if _, dropped, _ := a.history(); slices.Contains(dropped, long.Instance) {
				t.Errorf("node %s dropped the container of a lease that holds", id)
			}
		}
	})
}
