package pool

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func TestReachesWhatIsDesired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(from(desired(1, 1, restored("i-1"), restored("i-2"), restored("i-3"), warm("i-4")), digestOf(1)))
		a.settle(fetchTook / 2)
		a.wantStates("i-4 warm") // the others wait for their checkpoint
		a.settle(fetchTook/2 + 3*startTook)
		a.wantStates("i-1 warm, i-2 warm, i-3 warm, i-4 warm")
		ports := map[int]bool{}
		for _, i := range a.Observed().Instances {
			ports[i.Port] = true
			if i.Credentials == nil || i.Credentials.Password != "of "+string(i.ID) {
				t.Errorf("credentials of %s: got %v, want its own", i.ID, i.Credentials)
			}
		}
		if len(ports) != 4 {
			t.Errorf("ports: got %v, want four different ones", slices.Sorted(maps.Keys(ports)))
		}
		if a.runtime.mostStarts > 2 {
			t.Errorf("starts at the same time: got %d, want at most 2", a.runtime.mostStarts)
		}
		before := a.Observed().Revision
		a.desire(from(desired(1, 1, restored("i-1"), restored("i-2"), restored("i-3"), warm("i-4")), digestOf(1)))
		a.settle(time.Minute)
		if got := a.Observed().Revision; got != before || a.runtime.called("start") != 4 {
			t.Errorf("the same word again: got revision %d and %d starts, want %d and 4", got, a.runtime.called("start"), before)
		}
		a.desire(desired(1, 2))
		a.settle(time.Second)
		a.wantStates("")
		a.wantRunning()
	})
}

func TestObserveWaitsForNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		first := a.desire(desired(1, 1))
		if first.Boot == "" || first.Node.MemoryAvailable != 3<<30 || first.Node.DiskAvailable != 50<<30 {
			t.Errorf("first observation: got boot %q, %s memory, %s disk; want a boot, 3GiB, 50GiB", first.Boot, first.Node.MemoryAvailable, first.Node.DiskAvailable)
		}
		if o, err := a.Observe(t.Context(), "another process", first.Revision+100); err != nil || o.Revision != first.Revision {
			t.Errorf("Observe of another boot: got revision %d, %v; want %d at once", o.Revision, err, first.Revision)
		}
		began := time.Now()
		news := make(chan api.Observed, 1)
		go func() {
			o, err := a.Observe(t.Context(), first.Boot, first.Revision)
			if err != nil {
				t.Errorf("Observe: %v", err)
			}
			news <- o
		}()
		time.Sleep(time.Second)
		a.desire(desired(1, 2))
		if o := <-news; o.Generation != 2 || time.Since(began) != time.Second {
			t.Errorf("Observe: got generation %d after %s, want 2 after 1s", o.Generation, time.Since(began))
		}
	})
}

func TestHangingStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.runtime.set("start", nil, true)
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		a.runtime.set("start", nil, false)
		a.desire(desired(1, 2, warm("i-1"), warm("i-2"))) // still answers, and still starts
		a.settle(time.Second)
		a.wantStates("i-1 restoring, i-2 warm")
		a.settle(restoreTimeout + time.Minute)
		a.wantStates("i-1 failed, i-2 warm")
		if got := a.instance("i-1").Reason; !strings.Contains(got, "it took longer than") {
			t.Errorf("reason: got %q, want that it took too long", got)
		}
		a.wantRunning("i-2")
	})
}

func TestHangingList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeRuntime()
		f.set("list", nil, true)
		a := run(t, t.TempDir(), f)
		if _, err := a.Accept(t.Context(), desired(1, 1)); api.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("Accept before the first list: got %v, want code unavailable", err)
		}
		f.set("list", nil, false)
		a.settle(listTimeout + listPeriod + time.Second)
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		a.wantStates("i-1 warm")
	})
}

func TestUnwantedStartIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.runtime.set("start", nil, true)
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		a.desire(desired(1, 2))
		a.settle(time.Second)
		a.wantStates("")
		a.wantRunning()
		if got := a.recorder.count("start"); got != 0 {
			t.Errorf("failures: got %d, want none: it was cancelled", got)
		}
	})
}

func TestStopKeepsContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		a.runtime.set("start", nil, true)
		a.desire(desired(1, 2, warm("i-1"), warm("i-2")))
		a.settle(time.Second)
		a.stop()
		a.wantRunning("i-1") // and the half-made one is gone
	})
}

func TestFailures(t *testing.T) {
	inBubble(t, "a failed start is reported and not repeated", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.runtime.set("start", errBroken, false)
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Minute)
		a.wantStates("i-1 failed")
		if got := a.instance("i-1"); got.Reason != "broken for the test" || got.Port != 0 || a.runtime.called("start") != 1 || a.recorder.count("start") != 1 {
			t.Errorf("got %+v after %d starts, want one start, no port and its reason in one line", got, a.runtime.called("start"))
		}
		a.desire(desired(1, 2))
		a.settle(time.Second)
		a.wantStates("")
	})
	inBubble(t, "what a failed start left is removed", func(t *testing.T) {
		f := newFakeRuntime()
		f.leave = true
		a := run(t, t.TempDir(), f)
		f.set("start", errBroken, false)
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(3 * listPeriod)
		a.wantStates("i-1 failed")
		a.wantRunning()
		if got := a.instance("i-1").Reason; got != "broken for the test" {
			t.Errorf("reason: got %q, want the first one", got)
		}
	})
	inBubble(t, "a failed removal is repeated, ever more slowly", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		a.runtime.set("remove", errBroken, false)
		a.desire(desired(1, 2))
		a.settle(10 * time.Minute)
		a.wantRunning("i-1")
		if got := a.runtime.called("remove"); got < 10 || got > 20 {
			t.Errorf("removals in ten minutes: got %d, want 10 to 20", got)
		}
		a.runtime.set("remove", nil, false)
		a.settle(backoffMost + time.Second)
		a.wantRunning()
		a.wantStates("")
	})
	inBubble(t, "a list that fails loses nothing", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		a.runtime.set("list", errBroken, false)
		a.settle(time.Minute)
		a.wantStates("i-1 warm")
		if a.recorder.count("list") == 0 {
			t.Error("failed lists were not counted")
		}
	})
	inBubble(t, "a checkpoint that cannot be had fails who waits for it, and is tried again", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.runtime.set("ensure", errBroken, false)
		a.desire(from(desired(1, 1, restored("i-1")), digestOf(1)))
		a.settle(3 * time.Second)
		a.wantStates("i-1 failed")
		if got := a.instance("i-1").Reason; !strings.Contains(got, "broken for the test") {
			t.Errorf("reason: got %q, want the one of the fetch", got)
		}
		a.runtime.set("ensure", nil, false)
		a.settle(10 * time.Second)
		a.desire(from(desired(1, 2, restored("i-2")), digestOf(1)))
		a.settle(time.Second)
		a.wantStates("i-2 warm")
	})
	inBubble(t, "a failed discard is repeated", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(from(desired(1, 1), digestOf(1)))
		a.settle(time.Minute)
		a.runtime.set("discard", errBroken, false)
		a.desire(desired(1, 2))
		a.settle(discardGrace + time.Minute)
		a.runtime.set("discard", nil, false)
		a.settle(2 * backoffMost)
		if got := a.Observed().Checkpoints; len(got) != 0 || len(a.runtime.checkpoints) != 0 {
			t.Errorf("checkpoints: got %v observed and %v stored, want none", got, a.runtime.checkpoints)
		}
	})
	inBubble(t, "a failed build is repeated when the leader asks again", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.runtime.set("build", errBroken, false)
		a.desire(building(desired(1, 1), 1))
		a.settle(time.Minute)
		if got := a.Observed().Builds; len(got) != 1 || got[0].State != api.CheckpointFailed || got[0].Reason != "broken for the test" || a.runtime.called("build") != 1 {
			t.Fatalf("builds: got %+v after %d tries, want one that failed once", got, a.runtime.called("build"))
		}
		a.runtime.set("build", nil, false)
		a.desire(building(desired(1, 2), 2))
		a.settle(time.Minute)
		if got := a.Observed().Builds; len(got) != 1 || got[0].State != api.CheckpointReady || got[0].Digest != digestOf(1) {
			t.Errorf("builds: got %+v, want a ready one", got)
		}
		// It is ready to be restored from without a fetch.
		a.desire(building(desired(1, 3, restored("i-1")), 2))
		a.settle(time.Second)
		a.wantStates("i-1 warm")
	})
	inBubble(t, "a container that dies is reported", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, warm("i-1"), warm("i-2")))
		a.settle(time.Second)
		a.runtime.vanish("i-1")
		a.runtime.put(api.ObservedInstance{ID: "i-2", State: api.InstanceFailed, Reason: "its container is exited, exit code 137"})
		a.settle(2 * listPeriod)
		a.wantStates("i-1 failed, i-2 failed")
		a.wantRunning()
		if got := a.instance("i-2").Reason; got != "its container is exited, exit code 137" {
			t.Errorf("reason: got %q, want the runtime's", got)
		}
	})
	inBubble(t, "an error that names its stage is counted there", func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.runtime.set("start", errors.Join(errors.New("more"), stagedError{}), false)
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		if a.recorder.count(api.StageHook) != 1 {
			t.Errorf("failures: got %v, want one of the hook", a.recorder.failures)
		}
	})
}

type stagedError struct{}

func (stagedError) Error() string { return "in a stage" }
func (stagedError) Stage() string { return api.StageHook }

func TestNeverAboveCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		var wanted []api.DesiredInstance
		for _, id := range []api.InstanceID{"i-1", "i-2", "i-3", "i-4", "i-5", "i-6", "i-7", "i-8"} {
			wanted = append(wanted, warm(id))
		}
		a.desire(desired(1, 1, wanted...))
		a.settle(time.Minute)
		if got := len(a.runtime.running()); got != testCapacity {
			t.Errorf("containers: got %d, want %d", got, testCapacity)
		}
		// A slot is free only once its container is gone, not once it is told to go.
		a.runtime.set("remove", nil, true)
		a.desire(desired(1, 2, wanted[1:]...))
		a.settle(10 * time.Second)
		if got := len(a.runtime.running()); got != testCapacity {
			t.Errorf("containers while one is being removed: got %d, want %d", got, testCapacity)
		}
	})
}

func TestPortsRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFakeRuntime(), &fakeRecorder{}
		o := optionsIn(t.TempDir(), f, r)
		o.PortFree = func(port int) bool { return port == 20003 || port == 20007 }
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		a := &agent{Pool: p, t: t, runtime: f, recorder: r}
		done := make(chan error, 1)
		go func() { done <- p.Run(t.Context()) }()
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Errorf("the pool ended with: %v", err)
			}
		})
		a.settle(time.Second)
		a.desire(desired(1, 1, warm("i-1"), warm("i-2"), warm("i-3")))
		a.settle(time.Minute)
		a.wantStates("i-1 warm, i-2 warm, i-3 failed")
		if got := a.instance("i-3").Reason; !strings.Contains(got, "ports.first") {
			t.Errorf("reason: got %q, want the setting to change", got)
		}
	})
}
