package lease

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// told reports whether a watcher was told something since the last question.
func told(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestWatch(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		d, other := w.mustAcquire(""), w.mustAcquire("")
		changed, stop := w.Watch(d.ID)
		second, stopSecond := w.Watch(d.ID)
		quiet, stopQuiet := w.Watch(other.ID)
		defer stopQuiet()
		time.Sleep(time.Second)
		if told(changed) || told(second) {
			t.Error("told of a change although there was none")
		}
		if _, err := w.Extend(t.Context(), d.ID, api.ExtendRequest{}); err != nil {
			t.Fatalf("Extend: %v", err)
		}
		synctest.Wait()
		if !told(changed) || !told(second) || told(quiet) {
			t.Error("not exactly the watchers of the changed lease were told at once")
		}
		stopSecond()
		stopSecond() // ending it twice does no harm
		if _, err := w.Release(t.Context(), d.ID); err != nil {
			t.Fatalf("Release: %v", err)
		}
		time.Sleep(passEvery)
		synctest.Wait()
		if !told(changed) || told(second) {
			t.Error("not exactly the remaining watcher was told of the end")
		}
		w.must(state.Collect{EndedBefore: time.Now().Add(time.Hour), Limit: 9})
		time.Sleep(passEvery)
		synctest.Wait()
		if !told(changed) {
			t.Error("not told that the lease was forgotten")
		}
		stop()
		if n := w.watches.count(); n != 1 {
			t.Errorf("%d watchers are left, want 1", n)
		}
	})
}

// TestWatchUnknown watches a lease that this replica learns of later.
func TestWatchUnknown(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		changed, stop := w.Watch("later")
		defer stop()
		i, _ := w.log.View().Instance("i-0000")
		w.must(state.ClaimLease{Lease: "later", Instance: i.ID, InstanceRevision: i.Revision, TTL: 1, MaxTTL: 1})
		time.Sleep(passEvery)
		synctest.Wait()
		if !told(changed) {
			t.Error("not told of the new lease")
		}
	})
}

// TestWatchCoalesces changes a lease often: its watcher must hear of it, but
// not each time.
func TestWatchCoalesces(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		d := w.mustAcquire("")
		changed, stop := w.Watch(d.ID)
		defer stop()
		tellings := 0
		for n := range 1000 {
			w.must(state.RenewLease{Lease: d.ID, Revision: uint64(n + 1), ExpiresAt: d.ExpiresAt.Add(time.Duration(n+1) * time.Millisecond)})
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if told(changed) {
				tellings++
			}
		}
		if tellings < 15 || tellings > 21 {
			t.Errorf("told %d times of 1000 changes within a second, want about 20 times", tellings)
		}
		time.Sleep(passEvery)
		synctest.Wait()
		told(changed)
		if one := w.watches.leases[d.ID]; one.revision != 1001 {
			t.Errorf("the watcher was last told of revision %d, want 1001", one.revision)
		}
	})
}

// BenchmarkWatchPass looks through 10,000 watched leases of which none changed.
func BenchmarkWatchPass(b *testing.B) {
	l := newFakeLog()
	l.view = warmView(b, 10_000)
	w := newWatches(l)
	for n := range 10_000 {
		id := api.InstanceID(fmt.Sprintf("i-%06d", n))
		lease := api.NewLeaseID()
		if r := l.apply(state.ClaimLease{Lease: lease, Instance: id, InstanceRevision: 2, TTL: 1, MaxTTL: 1}); r.Refusal != nil {
			b.Fatal(r.Refusal)
		}
		w.add(lease)
	}
	for b.Loop() {
		w.pass()
	}
}
