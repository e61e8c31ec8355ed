package pool

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

func testJournal(t *testing.T) *journal {
	t.Helper()
	j, err := openJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJournalRoundTrip(t *testing.T) {
	j, now := testJournal(t), time.Now()
	d := Desired{Desired: desired(3, 4, leased("i-1", 2, time.Minute)), Deadlines: map[api.InstanceID]time.Time{"i-1": now.Add(time.Minute)}}
	if err := j.saveDesired(d, now); err != nil {
		t.Fatal(err)
	}
	got, err := j.loadDesired(now.Add(20 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got.Desired, d.Desired); diff != "" {
		t.Errorf("desired (-got +want):\n%s", diff)
	}
	if left := got.Deadlines["i-1"].Sub(now); left.Round(time.Second) != time.Minute {
		t.Errorf("end of the lease: got %s after it was saved, want 1m", left)
	}
	i := api.ObservedInstance{ID: "i-1", State: api.InstanceWarm, Port: 20001, Credentials: &api.Credentials{Username: "admin", Password: "secret"}}
	if err := j.saveInstance(i); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(j.dir, instanceFile("i-1")))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the record with credentials: got mode %v, %v, want 0600", info.Mode(), err)
	}
	known, err := j.loadInstances()
	if diff := cmp.Diff(known, map[api.InstanceID]api.ObservedInstance{"i-1": i}); diff != "" || err != nil {
		t.Errorf("instances: %v (-got +want):\n%s", err, diff)
	}
	for range 2 { // also where there is none
		if err := j.dropInstance("i-1"); err != nil {
			t.Errorf("dropInstance: %v", err)
		}
	}
}

func TestClockSetBackGivesNoTime(t *testing.T) {
	j, now := testJournal(t), time.Now()
	d := Desired{Desired: desired(1, 1), Deadlines: map[api.InstanceID]time.Time{"i-1": now.Add(time.Minute)}}
	if err := j.saveDesired(d, now); err != nil {
		t.Fatal(err)
	}
	back := now.Add(-time.Hour)
	got, err := j.loadDesired(back)
	if err != nil {
		t.Fatal(err)
	}
	if left := got.Deadlines["i-1"].Sub(back).Round(time.Second); left != time.Minute {
		t.Errorf("left of a lease of a minute, with the clock an hour back: got %s, want 1m", left)
	}
}

func TestTornRecordStopsTheStart(t *testing.T) {
	for _, name := range []string{desiredFile, buildsFile, instanceFile("i-1")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := openJournal(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"desired":{"term":`), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := New(optionsIn(dir, newFakeRuntime(), &fakeRecorder{}))
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) || !strings.Contains(err.Error(), "restore the file or remove it") {
				t.Errorf("got %v, want an error that names the file and says what to do", err)
			}
		})
	}
}

// TestInterruptedWriteIsHarmless checks that what a crash leaves of a write
// is not read.
func TestInterruptedWriteIsHarmless(t *testing.T) {
	j := testJournal(t)
	for _, dir := range []string{j.dir, filepath.Join(j.dir, instancesDir)} {
		if err := os.WriteFile(filepath.Join(dir, ".tmp-123"), []byte(`{"id":"i-`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if known, err := j.loadInstances(); err != nil || len(known) != 0 {
		t.Errorf("instances: got %v, %v, want none", known, err)
	}
	if err := os.Mkdir(filepath.Join(j.dir, buildsFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := j.saveBuilds(nil); err == nil {
		t.Error("writing over a directory: got no error")
	}
	if left, err := filepath.Glob(filepath.Join(j.dir, ".tmp-*")); err != nil || len(left) != 1 {
		t.Errorf("files left by a failed write: got %v, %v, want only the old one", left, err)
	}
}
