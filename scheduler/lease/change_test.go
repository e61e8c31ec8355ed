package lease

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestExtend(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		d := w.mustAcquire("")
		began := time.Now().UTC()
		extend := func(ttl time.Duration) (api.Demo, error) {
			return w.Extend(t.Context(), d.ID, api.ExtendRequest{TTL: api.Duration(ttl)})
		}
		check := func(what string, ttl, want time.Duration) {
			t.Helper()
			got, err := extend(ttl)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if left := got.ExpiresAt.Sub(began); left != want {
				t.Errorf("%s: ends after %s, want %s", what, left, want)
			}
			if got.Credentials == nil || w.records.demos[d.ID].Credentials != nil {
				t.Errorf("%s: credentials %v in the reply, %v in the record", what, got.Credentials, w.records.demos[d.ID].Credentials)
			}
			if rec := w.records.demos[d.ID]; rec.Revision != got.Revision {
				t.Errorf("%s: the record has revision %d, the demo %d", what, rec.Revision, got.Revision)
			}
		}
		check("the default", 0, 30*time.Minute)
		check("less than there is", 20*time.Minute, 30*time.Minute)
		check("again", 0, 30*time.Minute)
		time.Sleep(10 * time.Minute)
		check("ten minutes later", 0, 40*time.Minute)
		w.log.fail(overtaken, overtaken)
		check("while others do the same", 40*time.Minute, 50*time.Minute)
		check("beyond the latest end", 2*time.Hour, 2*time.Hour)
		check("at the latest end", 2*time.Hour, 2*time.Hour)

		for _, ttl := range []time.Duration{-1, time.Second, 2*time.Hour + 1} {
			_, err := extend(ttl)
			if e := wantCode(t, ttl.String(), err, api.CodeInvalid); !strings.Contains(e.Message, "from 10s to 2h0m0s") {
				t.Errorf("%s: message %q does not name the bounds", ttl, e.Message)
			}
		}
		_, err := w.Extend(t.Context(), api.NewLeaseID(), api.ExtendRequest{})
		wantCode(t, "an unknown demo", err, api.CodeNotFound)

		time.Sleep(111 * time.Minute)
		_, err = extend(0)
		wantCode(t, "after the latest end", err, api.CodeConflict)
		l, _ := w.log.View().Lease(d.ID)
		w.must(state.ExpireLeases{Leases: []state.LeaseRevision{{Lease: d.ID, Revision: l.Revision}}})
		_, err = extend(0)
		if e := wantCode(t, "an expired demo", err, api.CodeConflict); !strings.Contains(e.Message, "expired") {
			t.Errorf("message %q does not say that it expired", e.Message)
		}
	})
}

func TestRelease(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		d := w.mustAcquire("")
		w.log.fail(overtaken)
		first, err := w.Release(t.Context(), d.ID)
		if err != nil || first.State != api.DemoReleased || first.Credentials != nil {
			t.Fatalf("Release: %+v, %v", first, err)
		}
		if got := w.records.demos[d.ID].State; got != api.DemoReleased {
			t.Errorf("the record says %s", got)
		}
		again, err := w.Release(t.Context(), d.ID)
		if diff := cmp.Diff(first, again); err != nil || diff != "" {
			t.Errorf("released again: %v (-first +second):\n%s", err, diff)
		}
		_, err = w.Release(t.Context(), api.NewLeaseID())
		wantCode(t, "an unknown demo", err, api.CodeNotFound)

		d = w.mustAcquire("")
		time.Sleep(time.Minute)
		w.must(state.ExpireLeases{Leases: []state.LeaseRevision{{Lease: d.ID, Revision: d.Revision}}})
		if got, err := w.Release(t.Context(), d.ID); err != nil || got.State != api.DemoExpired {
			t.Errorf("an expired demo: %+v, %v", got, err)
		}
	})
}

// TestChangesWithoutALeader makes both changes where they cannot be done.
func TestChangesWithoutALeader(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		d := w.mustAcquire("")
		both := func(what string, code api.Code) {
			t.Helper()
			_, err := w.Extend(t.Context(), d.ID, api.ExtendRequest{})
			wantCode(t, "Extend, "+what, err, code)
			_, err = w.Release(t.Context(), d.ID)
			wantCode(t, "Release, "+what, err, code)
		}
		w.log.fail(uncertainBefore, uncertainBefore)
		both("uncertain", api.CodeUncertain)
		w.log.fail(notLeading, notLeading)
		both("just deposed", api.CodeNotLeader)
		w.log.lead(false, "s1")
		both("a follower", api.CodeNotLeader)
		w.log.lead(true, "s0")
		w.log.fail(uncertainAfter)
		_, err := w.Release(t.Context(), d.ID)
		wantCode(t, "Release, uncertain but done", err, api.CodeUncertain)
		if got, err := w.Release(t.Context(), d.ID); err != nil || got.State != api.DemoReleased {
			t.Errorf("repeated: %+v, %v", got, err)
		}
		w.log.mu.Lock()
		w.log.refuse = notLeader() // deposed, and does not know it yet
		w.log.mu.Unlock()
		_, err = w.Release(t.Context(), d.ID)
		wantCode(t, "nothing to do at a deposed leader", err, api.CodeNotLeader)
	})
}
