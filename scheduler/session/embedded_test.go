package session

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

func newTestEmbedded(t *testing.T, l Limits) *Embedded {
	t.Helper()
	e, err := NewEmbedded(EmbeddedOptions{Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEmbeddedLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEmbedded(t, Limits{PerHour: 2})
		if got := allowed(t, e, visitor, 5); got != 2 {
			t.Errorf("allowed %d of 5, want 2", got)
		}
		if got := allowed(t, e, other, 1); got != 1 {
			t.Error("one client used up the quota of another")
		}
		time.Sleep(time.Hour)
		if got := allowed(t, e, visitor, 5); got != 2 {
			t.Errorf("an hour later: allowed %d of 5, want 2", got)
		}
	})
}

func TestEmbeddedWithoutLimits(t *testing.T) {
	e := newTestEmbedded(t, Limits{})
	if got := allowed(t, e, visitor, 1000); got != 1000 || len(e.local.clients) != 0 {
		t.Errorf("allowed %d of 1000 and remembers %d clients, want all and none", got, len(e.local.clients))
	}
}

func TestEmbeddedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEmbedded(t, Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()

		e.Put(t.Context(), demo(2))
		e.Put(t.Context(), demo(1)) // late
		got, ok, err := e.Get(t.Context(), leaseID)
		if diff := cmp.Diff(stored(demo(2)), got); !ok || err != nil || diff != "" {
			t.Errorf("got %t, %v (-want +got):\n%s", ok, err, diff)
		}
		if _, ok, err := e.Get(t.Context(), "nobody"); ok || err != nil {
			t.Errorf("record of nobody: got %t, %v, want none", ok, err)
		}
		const life = time.Hour + defaultKept
		time.Sleep(life - time.Second)
		if _, ok, _ := e.Get(t.Context(), leaseID); !ok {
			t.Error("the record went before its time")
		}
		time.Sleep(time.Second)
		if _, ok, _ := e.Get(t.Context(), leaseID); ok {
			t.Error("the record stayed beyond its time")
		}
		time.Sleep(sweepEvery)
		synctest.Wait()
		e.mu.Lock()
		if len(e.records) != 0 {
			t.Errorf("%d records after the sweep, want 0", len(e.records))
		}
		e.mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestEmbeddedIsBounded(t *testing.T) {
	e := newTestEmbedded(t, Limits{})
	d := demo(1)
	for i := range maxRecords + 10 {
		d.ID = api.LeaseID(fmt.Sprint(i))
		e.Put(t.Context(), d)
	}
	if len(e.records) != maxRecords {
		t.Errorf("%d records, want %d", len(e.records), maxRecords)
	}
	d.ID, d.Revision = "0", 2 // there already, so there is room
	e.Put(t.Context(), d)
	if got, _, _ := e.Get(t.Context(), "0"); got.Revision != 2 {
		t.Errorf("revision %d in a full store, want 2", got.Revision)
	}
}

func TestEmbeddedStatus(t *testing.T) {
	e := newTestEmbedded(t, Limits{})
	if got, want := e.Status(), (api.StoreStatus{Kind: "embedded", Healthy: true}); got != want {
		t.Errorf("status = %+v, want %+v", got, want)
	}
	if _, err := NewEmbedded(EmbeddedOptions{Limits: Limits{PerDay: -1}}); err == nil {
		t.Error("a negative limit is accepted")
	}
}
