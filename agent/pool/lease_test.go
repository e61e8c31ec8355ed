package pool

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// ready returns an agent with two warm instances, the first one leased.
func ready(t *testing.T, left time.Duration) *agent {
	t.Helper()
	a := run(t, t.TempDir(), newFakeRuntime())
	a.desire(desired(1, 1, warm("i-1"), warm("i-2")))
	a.settle(time.Second)
	a.desire(desired(1, 2, leased("i-1", 1, left), warm("i-2")))
	a.settle(time.Second)
	a.wantStates("i-1 leased, i-2 warm")
	return a
}

func TestLeaseEndsOnOwnClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ready(t, time.Minute) // and nobody speaks again
		a.settle(time.Minute + leaseSlack - 2*time.Second)
		a.wantStates("i-1 leased, i-2 warm")
		a.settle(2 * time.Second)
		a.wantStates("i-1 failed, i-2 warm")
		a.wantRunning("i-2")
		if got := a.instance("i-1"); got.Credentials != nil || got.Reason != "its lease ran out on this node's clock" {
			t.Errorf("got %+v, want no credentials and the reason", got)
		}
	})
}

func TestLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ready(t, time.Minute)
		a.settle(50 * time.Second)
		a.desire(desired(1, 3, leased("i-1", 1, time.Minute), warm("i-2")))
		a.settle(50 * time.Second)
		a.wantStates("i-1 leased, i-2 warm")
		// The same word that arrives later gives no more time.
		a.desire(desired(1, 3, leased("i-1", 1, time.Minute), warm("i-2")))
		a.settle(15 * time.Second)
		a.wantStates("i-1 failed, i-2 warm")
	})
}

func TestLeasedNeverBecomesWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ready(t, time.Hour)
		a.desire(desired(1, 3, warm("i-1"), warm("i-2")))
		a.settle(time.Minute)
		if got := a.instance("i-1").State; got == api.InstanceWarm {
			t.Errorf("an instance that was leased: got %s, want anything else", got)
		}
		// An older epoch changes nothing either.
		a.desire(desired(1, 4, leased("i-1", 5, time.Hour), warm("i-2")))
		a.desire(desired(1, 5, leased("i-1", 4, time.Second), warm("i-2")))
		a.settle(time.Minute)
		if got := a.instance("i-1"); got.State != api.InstanceLeased || got.Epoch != 5 {
			t.Errorf("after an older epoch: got %s epoch %d, want leased epoch 5", got.State, got.Epoch)
		}
	})
}

func TestLeasedElsewhereIsNotStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, leased("i-1", 1, time.Hour)))
		a.settle(time.Minute)
		a.wantStates("i-1 failed")
		if got := a.runtime.called("start"); got != 0 {
			t.Errorf("starts: got %d, want none: the visitor would see an empty shop", got)
		}
	})
}

func TestAdoptsAfterCrash(t *testing.T) {
	inBubble(t, "warm and leased instances stay, before any leader speaks", func(t *testing.T) {
		b := ready(t, time.Hour).crash()
		b.wantStates("i-1 leased, i-2 warm")
		if got := b.instance("i-2"); got.Credentials == nil || got.Port == 0 {
			t.Errorf("adopted: got %+v, want its credentials and port", got)
		}
		b.settle(time.Minute)
		b.wantStates("i-1 leased, i-2 warm")
		b.desire(desired(2, 1, leased("i-1", 1, time.Hour), warm("i-2")))
		b.settle(time.Minute)
		b.wantStates("i-1 leased, i-2 warm")
		if got := b.runtime.called("start") + b.runtime.called("remove"); got != 0 {
			t.Errorf("starts and removals: got %d, want none", got)
		}
	})
	inBubble(t, "an older term stays refused", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(7, 3))
		b := a.crash()
		for _, old := range []api.Desired{desired(6, 9), desired(7, 2)} {
			if _, err := b.Accept(t.Context(), old); api.CodeOf(err) != api.CodeConflict {
				t.Errorf("term %d generation %d: got %v, want code conflict", old.Term, old.Generation, err)
			}
		}
		b.desire(desired(7, 3))
		b.desire(desired(8, 1))
	})
	inBubble(t, "leases end on the clock without a leader", func(t *testing.T) {
		b := ready(t, 10*time.Second).crash()
		b.settle(30 * time.Second)
		b.wantStates("i-1 failed, i-2 warm")
		b.wantRunning("i-2")
	})
	inBubble(t, "an orphan is kept until a leader has spoken for a while", func(t *testing.T) {
		b := ready(t, time.Hour).crash()
		b.settle(time.Hour / 2)
		b.desire(desired(2, 1))
		b.settle(orphanGrace - time.Second)
		b.wantRunning("i-1", "i-2")
		b.settle(3 * time.Second)
		b.wantRunning()
	})
	inBubble(t, "a half started instance is removed when its leader speaks", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(startTook / 2)
		b := a.crash()
		b.settle(time.Minute)
		b.wantStates("i-1 restoring")
		b.desire(desired(1, 2, warm("i-1")))
		b.settle(time.Second)
		b.wantStates("i-1 failed")
		b.wantRunning()
	})
	inBubble(t, "a lease proves an instance whose record was lost", func(t *testing.T) {
		f := newFakeRuntime()
		f.put(api.ObservedInstance{ID: "i-1", State: api.InstanceWarm, Port: 20001})
		a := run(t, t.TempDir(), f)
		a.desire(desired(1, 1, leased("i-1", 3, time.Hour)))
		a.settle(time.Minute)
		a.wantStates("i-1 leased")
		a.wantRunning("i-1")
	})
	inBubble(t, "a removal that was under way is finished", func(t *testing.T) {
		a := ready(t, time.Hour)
		a.desire(desired(1, 3, warm("i-2")))
		a.settle(removeTook / 2)
		b := a.crash()
		b.desire(desired(1, 4, warm("i-2")))
		b.settle(orphanGrace + time.Second)
		b.wantStates("i-2 warm")
		b.wantRunning("i-2")
	})
	inBubble(t, "a container that went meanwhile is reported", func(t *testing.T) {
		a := ready(t, time.Hour)
		a.runtime.vanish("i-1")
		b := a.crash()
		b.wantStates("i-1 failed, i-2 warm")
	})
	inBubble(t, "a finished build is known, unless its checkpoint is gone", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(building(desired(1, 1), 1))
		a.settle(time.Minute)
		b := a.crash()
		b.desire(building(desired(1, 2), 1))
		b.settle(time.Minute)
		if got := b.runtime.called("build"); got != 0 {
			t.Errorf("builds after a restart: got %d, want none", got)
		}
		delete(b.runtime.checkpoints, digestOf(1))
		c := b.crash()
		c.desire(building(desired(1, 3), 1))
		c.settle(time.Minute)
		if got := c.runtime.called("build"); got != 1 {
			t.Errorf("builds after the checkpoint was lost: got %d, want 1", got)
		}
	})
}

func TestUnknownContainerGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		a.runtime.put(api.ObservedInstance{ID: "i-9", State: api.InstanceWarm, Port: 20009})
		a.settle(listPeriod + orphanGrace + time.Second)
		a.wantStates("i-1 warm")
		a.wantRunning("i-1")
	})
}
