package pool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

func TestFencing(t *testing.T) {
	for _, c := range []struct {
		name             string
		term, generation uint64
		want             api.Code
	}{
		{"the same", 5, 5, ""},
		{"newer generation", 5, 6, ""},
		{"newer term", 6, 1, ""},
		{"older generation", 5, 4, api.CodeConflict},
		{"older term", 4, 9, api.CodeConflict},
		{"none", 0, 0, api.CodeConflict},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			a := run(t, t.TempDir(), newFakeRuntime())
			a.desire(desired(5, 5))
			_, err := a.Accept(t.Context(), desired(c.term, c.generation))
			if got := api.CodeOf(err); got != c.want {
				t.Errorf("term %d generation %d after 5, 5: got %v, want code %q", c.term, c.generation, err, c.want)
			}
		})
	}
}

func TestContradictionsAreRefused(t *testing.T) {
	with := func(change func(*api.DesiredInstance)) api.Desired {
		i := warm("i-1")
		change(&i)
		return desired(1, 1, i)
	}
	for _, c := range []struct {
		name, field string
		d           api.Desired
	}{
		{"a path as an ID", "instances[0].id", with(func(i *api.DesiredInstance) { i.ID = "../../etc" })},
		{"an ID twice", "instances[1].id", desired(1, 1, warm("i-1"), warm("i-1"))},
		{"a template that was not sent", "instances[0].template", with(func(i *api.DesiredInstance) { i.Template.Revision = 2 })},
		{"a state that nobody desires", "instances[0].state", with(func(i *api.DesiredInstance) { i.State = api.InstanceFailed })},
		{"a digest that is a path", "instances[0].checkpoint", with(func(i *api.DesiredInstance) { i.Checkpoint = "../x" })},
		{"a URL of another host", "instances[0].url", with(func(i *api.DesiredInstance) { i.URL = "http://elsewhere" })},
		{"a lease without end", "instances[0].expires_in", with(func(i *api.DesiredInstance) { i.State = api.InstanceLeased })},
		{"a checkpoint that is no digest", "checkpoints[0].digest", from(desired(1, 1), "beef")},
		{"a source that is no URL", "checkpoints[0].sources", api.Desired{Checkpoints: []api.CheckpointSource{{Digest: digestOf(1), Sources: []string{"file:///etc/passwd"}}}}},
		{"a build of a template that was not sent", "builds[0].template", building(api.Desired{}, 1)},
		{"a template that is not valid", "templates[0]", api.Desired{Templates: []api.TemplateRevision{{}}}},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			a := run(t, t.TempDir(), newFakeRuntime())
			_, err := a.Accept(t.Context(), c.d)
			if api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), c.field) {
				t.Errorf("got %v, want code invalid that names %s", err, c.field)
			}
		})
	}
}

func TestDiskThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.desire(desired(1, 1, warm("i-1")))
		a.settle(time.Second)
		hidden := a.dir + ".hidden"
		if err := os.Rename(a.dir, hidden); err != nil {
			t.Fatal(err)
		}
		_, err := a.Accept(t.Context(), desired(1, 2))
		if api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "disk") {
			t.Errorf("Accept: got %v, want code unavailable that names the disk", err)
		}
		if got := a.Observed().Generation; got != 1 {
			t.Errorf("generation: got %d, want 1: what is not stored was not accepted", got)
		}
		a.settle(time.Minute)
		a.wantStates("i-1 warm")
		if err := os.Rename(hidden, a.dir); err != nil {
			t.Fatal(err)
		}
		// A start whose record cannot be stored must not be offered to anybody.
		if err := os.Rename(filepath.Join(a.dir, instancesDir), hidden); err != nil {
			t.Fatal(err)
		}
		a.desire(desired(1, 3, warm("i-1"), warm("i-2")))
		a.settle(time.Second)
		a.wantStates("i-1 warm, i-2 failed")
		a.wantRunning("i-1")
	})
}

func TestStoppedPoolRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := run(t, t.TempDir(), newFakeRuntime())
		a.stop()
		ctx, cancel := contextFor(t, time.Second)
		defer cancel()
		if _, err := a.Accept(ctx, desired(1, 1)); api.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("Accept: got %v, want code unavailable", err)
		}
	})
}
