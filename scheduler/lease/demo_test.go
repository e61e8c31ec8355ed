package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestInspect(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		d := w.mustAcquire("")
		inspect := func(what string, want api.Demo, wantStale bool) {
			t.Helper()
			got, stale, err := w.Inspect(t.Context(), d.ID)
			if err != nil || stale != wantStale {
				t.Errorf("%s: stale %t, %v, want stale %t", what, stale, err, wantStale)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		inspect("at the leader", d, false)
		w.log.lead(false, "s1")
		inspect("at a follower", d, false)
		w.log.lead(false, "")
		inspect("without a leader", d, true)
		w.records.setDown(errors.New("no store"))
		inspect("without a leader and a store", d, true)
		w.records.setDown(nil)
		w.log.lead(false, "s1")

		newer := withoutCredentials(d)
		newer.Revision, newer.ExpiresAt = 2, d.ExpiresAt.Add(time.Hour)
		w.records.Put(t.Context(), newer)
		want := newer
		want.Credentials = d.Credentials
		inspect("the record is newer", want, false)

		newer.Revision, newer.Epoch = 3, 2
		w.records.Put(t.Context(), newer)
		inspect("the record knows another instance", newer, false)

		newer.Revision, newer.Epoch, newer.State = 4, 1, api.DemoReleased
		w.records.Put(t.Context(), newer)
		inspect("the record knows the end", newer, false)
	})
}

func TestInspectUnknown(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		id := api.NewLeaseID()
		inspect := func() error {
			_, _, err := w.Inspect(t.Context(), id)
			return err
		}
		wantCode(t, "at the leader", inspect(), api.CodeNotFound)
		if w.log.verified != 1 {
			t.Errorf("the leader made sure %d times, want once", w.log.verified)
		}
		w.log.mu.Lock()
		w.log.refuse = unavailable("no majority")
		w.log.mu.Unlock()
		wantCode(t, "at a leader that is not sure", inspect(), api.CodeUnavailable)
		w.log.lead(false, "s1")
		wantCode(t, "at a follower", inspect(), api.CodeNotLeader)
		w.records.Put(t.Context(), api.Demo{ID: id, State: api.DemoActive, Revision: 1})
		wantCode(t, "at a follower that has a record", inspect(), api.CodeNotLeader)
		w.log.lead(false, "")
		if got, stale, err := w.Inspect(t.Context(), id); err != nil || !stale || got.ID != id {
			t.Errorf("without a leader, with a record: %+v, stale %t, %v", got, stale, err)
		}
	})
}

// TestMovedDemo checks what a visitor sees while the instance fails, and after
// the lease moved.
func TestMovedDemo(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		d := w.mustAcquire("")
		i, _ := w.log.View().Instance(w.instanceOf(d))
		w.must(state.FailInstance{ID: i.ID, Revision: i.Revision, Reason: "died"})
		other, _ := w.log.View().Instance("i-0001")
		w.must(state.RebindLease{Lease: d.ID, Revision: 1, Instance: other.ID, InstanceRevision: other.Revision})
		w.Record(d.ID)
		w.Record(api.NewLeaseID()) // an unknown one is nothing to record
		want := d
		want.Epoch, want.Revision = 2, 2
		want.Credentials = &api.Credentials{Username: "admin", Password: "pass-i-0001"}
		got, _, err := w.Inspect(t.Context(), d.ID)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Inspect: %v (-want +got):\n%s", err, diff)
		}
		want.Credentials = nil
		if diff := cmp.Diff(map[api.LeaseID]api.Demo{d.ID: want}, w.records.demos); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

func TestPoolStats(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.mustAcquire("")
		want := api.PoolStats{AsOf: time.Now().UTC(), Templates: []api.TemplateStats{
			{Template: "shop", Revision: 1, WarmTarget: 3, Warm: 2, Leased: 1},
		}}
		if diff := cmp.Diff(want, w.PoolStats()); diff != "" {
			t.Errorf("PoolStats (-want +got):\n%s", diff)
		}
		w.log.lead(false, "")
		if !w.PoolStats().Stale {
			t.Error("without a leader the figures are not marked stale")
		}
	})
}
