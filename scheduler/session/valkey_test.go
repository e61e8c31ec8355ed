package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/boss/demo-multiplexer/api"
)

func TestLimits(t *testing.T) {
	v, m := onFake(t)
	steps := []struct {
		name   string
		before func()
		want   api.Quota
	}{
		{"first", nil, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 2, time.Hour), dayWindow(5, 4, 24*time.Hour)}}},
		{"second", nil, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 1, time.Hour), dayWindow(5, 3, 24*time.Hour)}}},
		{"third", nil, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 0, time.Hour), dayWindow(5, 2, 24*time.Hour)}}},
		{"over the hour's", nil, api.Quota{Windows: []api.QuotaWindow{hourWindow(3, 0, time.Hour), dayWindow(5, 2, 24*time.Hour)}}},
		{"half an hour later", func() { m.FastForward(30 * time.Minute) },
			api.Quota{Windows: []api.QuotaWindow{hourWindow(3, 0, 30*time.Minute), dayWindow(5, 2, 24*time.Hour-30*time.Minute)}}},
		{"the hour is over", func() { m.FastForward(30 * time.Minute) },
			api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 2, time.Hour), dayWindow(5, 1, 23*time.Hour)}}},
		{"the day's last", nil, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 1, time.Hour), dayWindow(5, 0, 23*time.Hour)}}},
		{"over the day's", nil, api.Quota{Windows: []api.QuotaWindow{hourWindow(3, 1, time.Hour), dayWindow(5, 0, 23*time.Hour)}}},
		{"the day is over", func() { m.FastForward(23 * time.Hour) },
			api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 2, time.Hour), dayWindow(5, 4, 24*time.Hour)}}},
	}
	for _, s := range steps {
		if s.before != nil {
			s.before()
		}
		if diff := cmp.Diff(s.want, allow(t, v, visitor)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
	if got := allowed(t, v, other, 1); got != 1 {
		t.Error("one client used up the quota of another")
	}
	if got := testutil.CollectAndCount(v.metrics.fallbacks); got != 0 {
		t.Errorf("%d fallbacks with Valkey up, want 0", got)
	}
}

// TestCounterWithoutExpiry: a counter that lost its expiry must not lock its
// client out for good.
func TestCounterWithoutExpiry(t *testing.T) {
	v, m := onFake(t)
	allowed(t, v, visitor, 4)
	for _, key := range limitKeys(keyOf(v.options.Secret, visitor).String(), v.windows) {
		if err := m.Set(key, "3"); err != nil { // and no time to live
			t.Fatal(err)
		}
	}
	if q := allow(t, v, visitor); q.Allowed || q.Windows[0].Reset != time.Hour {
		t.Errorf("got %+v, want a refusal until an hour is over", q)
	}
	m.FastForward(time.Hour)
	if q := allow(t, v, visitor); !q.Allowed {
		t.Errorf("got %+v after the new hour, want allowed", q)
	}
}

func TestWithoutLimitsNobodyAsksValkey(t *testing.T) {
	v := newStore(t, "127.0.0.1:1", func(o *Options) { o.Limits = Limits{} }) // and it does not run
	if got := allowed(t, v, visitor, 100); got != 100 {
		t.Errorf("allowed %d of 100, want all", got)
	}
}

func TestDownPolicyLocal(t *testing.T) {
	v, m := onFake(t)
	allowed(t, v, visitor, 3)
	m.Close()
	waitHealthy(t, v, false)
	if got := allowed(t, v, visitor, 10); got != 3 {
		t.Errorf("allowed %d of 10 while Valkey is down, want the limit of 3", got)
	}
	if got := testutil.ToFloat64(v.metrics.fallbacks.WithLabelValues(string(PolicyLocal))); got != 10 {
		t.Errorf("%v fallbacks counted, want 10", got)
	}
	if s := v.Status(); s.Kind != "valkey" || s.Reason == "" || testutil.ToFloat64(v.metrics.up) != 0 {
		t.Errorf("status = %+v, want a reason", s)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	waitHealthy(t, v, true)
	if q := allow(t, v, visitor); q.Allowed {
		t.Errorf("got %+v, want what Valkey counted before", q)
	}
	if got := testutil.ToFloat64(v.metrics.up); got != 1 {
		t.Errorf("up = %v, want 1", got)
	}
}

func TestDownPolicyRefuse(t *testing.T) {
	v := newStore(t, "127.0.0.1:1", fake, func(o *Options) { o.WhenDown = PolicyRefuse }) // does not run: not connected yet
	_, err := v.Allow(t.Context(), visitor)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeUnavailable || e.RetryAfter <= 0 || !errors.Is(err, errDown) {
		t.Errorf("Allow = %+v, want code unavailable with a time to retry after", err)
	}
	if strings.Contains(err.Error(), visitor) || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the message %q shows an address", err)
	}
}

// TestSilentValkeyCostsLittle: once it is known to be down, nobody waits.
func TestSilentValkeyCostsLittle(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts by the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	v := newStore(t, l.Addr().String(), fake)
	start(t, v)
	began := time.Now()
	if got := allowed(t, v, visitor, 1000); got != 3 {
		t.Errorf("allowed %d of 1000, want 3", got)
	}
	if took := time.Since(began); took > 20*callTimeout {
		t.Errorf("1000 requests took %s with a Valkey that never answered", took)
	}
	if _, _, err := v.Get(t.Context(), leaseID); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("Get = %v, want code unavailable", err)
	}
}

// TestGoneCallersSayNothingAboutValkey: neither the breaker nor the local
// limiter may learn from a request that its caller gave up.
func TestGoneCallersSayNothingAboutValkey(t *testing.T) {
	v, _ := onFake(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * tripAfter {
		if _, err := v.Allow(gone, visitor); !errors.Is(err, context.Canceled) {
			t.Fatalf("Allow = %v, want cancelled", err)
		}
	}
	if s := v.Status(); !s.Healthy || len(v.local.clients) != 0 {
		t.Errorf("status = %+v with %d clients counted here, want healthy and none", s, len(v.local.clients))
	}
}

// TestErrorRepliesTrip: a Valkey that answers with errors is as good as none.
func TestErrorRepliesTrip(t *testing.T) {
	v, m := onFake(t)
	m.SetError("LOADING Valkey is loading the dataset in memory")
	waitHealthy(t, v, false)
	if s := v.Status(); !strings.Contains(s.Reason, "LOADING") {
		t.Errorf("reason = %q, want what Valkey said", s.Reason)
	}
	if got := allowed(t, v, visitor, 5); got != 3 {
		t.Errorf("allowed %d of 5, want 3", got)
	}
	m.SetError("")
	waitHealthy(t, v, true)
}

func TestRecords(t *testing.T) {
	v, m := onFake(t)
	if _, ok, err := v.Get(t.Context(), leaseID); ok || err != nil {
		t.Errorf("record that was never put: got %t, %v, want none", ok, err)
	}
	want := demo(2)
	v.Put(t.Context(), want)
	waitRecord(t, v, want)
	got, _, err := v.Get(t.Context(), leaseID)
	if diff := cmp.Diff(stored(want), got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if ttl := m.TTL(recordKey(leaseID)); ttl <= time.Hour || ttl > time.Hour+defaultKept {
		t.Errorf("the record lives for %s, want an hour longer than its demo", ttl)
	}
	// Another scheduler's older write arrives late.
	late := demo(1)
	late.State = api.DemoExpired
	v.Put(t.Context(), late)
	marker := demo(1)
	marker.ID = "after it"
	v.Put(t.Context(), marker)
	waitRecord(t, v, marker)
	if got, _, _ := v.Get(t.Context(), leaseID); got.Revision != 2 || got.State != api.DemoActive {
		t.Errorf("got revision %d, %s, want the newer one", got.Revision, got.State)
	}
	newer := demo(3)
	newer.State = api.DemoReleased
	v.Put(t.Context(), newer)
	waitRecord(t, v, newer)
	m.FastForward(2 * time.Hour)
	if _, ok, err := v.Get(t.Context(), leaseID); ok || err != nil {
		t.Errorf("two hours later: got %t, %v, want none", ok, err)
	}
}

func TestRecordsWaitWhileValkeyIsDown(t *testing.T) {
	v, m := onFake(t, func(o *Options) { o.QueueSize = 3 })
	m.Close()
	waitHealthy(t, v, false)
	for i := range 5 {
		d := demo(uint64(i + 1))
		d.ID = api.LeaseID(fmt.Sprint("lease-", i))
		v.Put(t.Context(), d)
	}
	if got := testutil.ToFloat64(v.metrics.dropped); got != 2 || v.queue.len() != 3 {
		t.Errorf("dropped %v and %d wait, want 2 and 3", got, v.queue.len())
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	last := demo(5)
	last.ID = "lease-4"
	waitHealthy(t, v, true)
	waitRecord(t, v, last)
	for i, want := range []bool{false, false, true, true, true} {
		if _, ok, err := v.Get(t.Context(), api.LeaseID(fmt.Sprint("lease-", i))); ok != want || err != nil {
			t.Errorf("record %d: got %t, %v, want %t", i, ok, err, want)
		}
	}
}

// TestNothingSecretIsStored looks at every key and value.
func TestNothingSecretIsStored(t *testing.T) {
	v, m := onFake(t)
	d := demo(1)
	allow(t, v, visitor)
	allow(t, v, other)
	v.Put(t.Context(), d)
	waitRecord(t, v, d)
	dump := m.Dump()
	if !strings.Contains(dump, limitPrefix) || !strings.Contains(dump, recordPrefix) {
		t.Fatalf("nothing is stored:\n%s", dump)
	}
	for _, secret := range []string{visitor, other, string(leaseID), d.Credentials.Username, d.Credentials.Password, "secret of the cluster"} {
		if strings.Contains(dump, secret) {
			t.Errorf("%q is stored:\n%s", secret, dump)
		}
	}
}

// TestFlushedValkey: scripts and counters that vanish are no failure.
func TestFlushedValkey(t *testing.T) {
	v, m := onFake(t)
	allowed(t, v, visitor, 4)
	m.FlushAll()
	if got := allowed(t, v, visitor, 4); got != 3 || !v.Status().Healthy {
		t.Errorf("allowed %d of 4 with status %+v, want a new quota of 3", got, v.Status())
	}
}

func TestStoppedStoreRefusesToAsk(t *testing.T) {
	v, _ := onFake(t)
	v2 := newStore(t, v.options.Addresses[0], fake)
	stop := start(t, v2)
	waitHealthy(t, v2, true)
	stop()
	if _, _, err := v2.Get(t.Context(), leaseID); !errors.Is(err, errDown) {
		t.Errorf("Get after the end = %v, want %v", err, errDown)
	}
	if got := allowed(t, v2, visitor, 5); got != 3 {
		t.Errorf("allowed %d of 5 after the end, want 3", got)
	}
}
