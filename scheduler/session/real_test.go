//go:build integration

package session

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valkey-io/valkey-go"

	"github.com/boss/demo-multiplexer/api"
)

// realValkey is a Valkey process of this test on a loopback port.
type realValkey struct {
	t       *testing.T
	dir     string
	address string
	cmd     *exec.Cmd
	log     *bytes.Buffer
}

func startValkey(t *testing.T) *realValkey {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &realValkey{t: t, dir: t.TempDir(), address: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r.setPassword("first password")
	r.start("first password")
	t.Cleanup(r.kill)
	return r
}

func (r *realValkey) passwordFile() string { return filepath.Join(r.dir, "password") }

// setPassword changes what the store reads, not what Valkey wants.
func (r *realValkey) setPassword(p string) {
	r.t.Helper()
	if err := os.WriteFile(r.passwordFile(), []byte(p), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *realValkey) start(password string) {
	r.t.Helper()
	binary := os.Getenv("VALKEY_SERVER")
	if binary == "" {
		binary = "valkey-server"
	}
	path, err := exec.LookPath(binary)
	if err != nil {
		r.t.Fatalf("these tests need Valkey; run them by deploy/setup/with-services: %v", err)
	}
	_, port, err := net.SplitHostPort(r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = &bytes.Buffer{}
	r.cmd = exec.Command(path, "--bind", "127.0.0.1", "--port", port, "--requirepass", password, "--dir", r.dir, "--save", "", "--appendonly", "no")
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "Valkey listens", func() error {
		c, err := (&net.Dialer{}).DialContext(r.t.Context(), "tcp", r.address)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// kill ends the process without a chance to tidy up.
func (r *realValkey) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
	if r.t.Failed() {
		r.t.Logf("Valkey's log:\n%s", r.log)
	}
}

func (r *realValkey) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// store returns a running store that uses r and is healthy.
func (r *realValkey) store(change ...func(*Options)) *Valkey {
	r.t.Helper()
	v := newStore(r.t, r.address, append([]func(*Options){func(o *Options) { o.PasswordFile = r.passwordFile() }}, change...)...)
	start(r.t, v)
	waitHealthy(r.t, v, true)
	return v
}

// do runs one command beside the store.
func (r *realValkey) do(v *Valkey, words ...string) valkey.ValkeyResult {
	r.t.Helper()
	c := *v.client.Load()
	return c.Do(r.t.Context(), c.B().Arbitrary(words...).Build())
}

// near tolerates the milliseconds that pass between two calls.
var near = cmpopts.EquateApprox(0, float64(5*time.Second))

func wantQuota(t *testing.T, what string, got, want api.Quota) {
	t.Helper()
	approx := cmp.Transformer("seconds", func(d time.Duration) float64 { return float64(d) })
	if diff := cmp.Diff(want, got, approx, near); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestRealLimits(t *testing.T) {
	r := startValkey(t)
	v := r.store()
	for i := range int64(3) {
		wantQuota(t, fmt.Sprintf("request %d", i), allow(t, v, visitor),
			api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 2-i, time.Hour), dayWindow(5, 4-i, 24*time.Hour)}})
	}
	refused := api.Quota{Windows: []api.QuotaWindow{hourWindow(3, 0, time.Hour), dayWindow(5, 2, 24*time.Hour)}}
	wantQuota(t, "over the hour's", allow(t, v, visitor), refused)
	wantQuota(t, "again", allow(t, v, visitor), refused)
	wantQuota(t, "another client", allow(t, v, other),
		api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 2, time.Hour), dayWindow(5, 4, 24*time.Hour)}})
	// Another scheduler sees the same counters.
	wantQuota(t, "at another scheduler", allow(t, r.store(), visitor), refused)
}

// TestRealWindowExpiry brings the end of the hour forward.
func TestRealWindowExpiry(t *testing.T) {
	r := startValkey(t)
	v := r.store()
	allowed(t, v, visitor, 4)
	hour := limitKeys(keyOf(v.options.Secret, visitor).String(), v.windows)[0]
	if n, err := r.do(v, "PEXPIRE", hour, "300").AsInt64(); n != 1 || err != nil {
		t.Fatalf("PEXPIRE = %d, %v: is there no counter?", n, err)
	}
	q := allow(t, v, visitor)
	if q.Allowed || q.Windows[0].Reset <= 0 || q.Windows[0].Reset > 300*time.Millisecond {
		t.Fatalf("got %+v, want a refusal for 300 ms at most", q)
	}
	<-time.After(q.Windows[0].Reset)
	eventually(t, "the quota is back", func() error {
		if q = allow(t, v, visitor); !q.Allowed {
			return fmt.Errorf("got %+v", q)
		}
		return nil
	})
	wantQuota(t, "first of the new hour", q, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(3, 2, time.Hour), dayWindow(5, 1, 24*time.Hour)}})
}

// TestRealLimitUnderLoad: many requests at once, by several schedulers, get
// the quota and no more.
func TestRealLimitUnderLoad(t *testing.T) {
	r := startValkey(t)
	const limit, callers = 100, 16
	limits := func(o *Options) { o.Limits, o.WhenDown = Limits{PerHour: limit, PerDay: 10 * limit}, PolicyRefuse }
	stores := []*Valkey{r.store(limits), r.store(limits)}
	var count, errs atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range limit {
				q, err := stores[i%2].Allow(t.Context(), visitor)
				if err != nil {
					errs.Add(1)
				} else if q.Allowed {
					count.Add(1)
				}
			}
		})
	}
	wg.Wait()
	// A caller who waited too long does not learn whether it was counted.
	if n := count.Load(); n > limit || n+errs.Load() < limit {
		t.Errorf("allowed %d of %d with %d errors, want %d", n, callers*limit, errs.Load(), limit)
	}
}

func TestRealStoppedAndBack(t *testing.T) {
	r := startValkey(t)
	v := r.store()
	allowed(t, v, visitor, 3)
	r.kill()
	waitHealthy(t, v, false)
	if got := allowed(t, v, visitor, 10); got != 3 {
		t.Errorf("allowed %d of 10 while Valkey is down, want the limit of 3", got)
	}
	if _, _, err := v.Get(t.Context(), leaseID); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("Get = %v, want code unavailable", err)
	}
	v.Put(t.Context(), demo(1)) // waits
	r.start("first password")   // empty
	waitHealthy(t, v, true)
	waitRecord(t, v, demo(1))
	if got := allowed(t, v, visitor, 10); got != 3 {
		t.Errorf("allowed %d of 10 by an empty Valkey, want 3", got)
	}
}

// TestRealSilent freezes Valkey: it accepts and does not answer, as behind a
// partition. A few requests wait for the call timeout, the others for nothing.
func TestRealSilent(t *testing.T) {
	r := startValkey(t)
	v := r.store(func(o *Options) { o.WhenDown = PolicyRefuse })
	allow(t, v, visitor)
	r.signal(syscall.SIGSTOP)
	var slow int
	for range 200 {
		began := time.Now()
		_, err := v.Allow(t.Context(), visitor)
		if api.CodeOf(err) != api.CodeUnavailable {
			t.Fatalf("Allow = %v, want code unavailable", err)
		}
		if time.Since(began) >= callTimeout {
			slow++
		}
	}
	if slow == 0 || slow > tripAfter+2 { // two, for a machine that stalls
		t.Errorf("%d of 200 requests waited for Valkey, want 1 to %d", slow, tripAfter)
	}
	r.signal(syscall.SIGCONT)
	waitHealthy(t, v, true)
	if _, err := v.Allow(t.Context(), other); err != nil {
		t.Errorf("Allow of the woken Valkey = %v, want none", err)
	}
}

func TestRealWrongPassword(t *testing.T) {
	r := startValkey(t)
	r.setPassword("mistaken")
	v := newStore(t, r.address, func(o *Options) { o.PasswordFile = r.passwordFile() })
	start(t, v)
	eventually(t, "the reason is told", func() error {
		if s := v.Status(); s.Healthy || !strings.Contains(s.Reason, "WRONGPASS") {
			return fmt.Errorf("status is %+v", s)
		}
		return nil
	})
	if s := v.Status(); strings.Contains(s.Reason, "mistaken") {
		t.Errorf("the reason %q shows the password", s.Reason)
	}
	if got := allowed(t, v, visitor, 5); got != 3 {
		t.Errorf("allowed %d of 5 without Valkey, want 3", got)
	}
	r.setPassword("first password") // the operator corrects the file; no restart
	waitHealthy(t, v, true)
}

func TestRealRecordsNewestWins(t *testing.T) {
	r := startValkey(t)
	one, two := r.store(), r.store()
	var wg sync.WaitGroup
	const writes = 200
	for i := range uint64(writes) {
		for _, v := range []*Valkey{one, two} {
			wg.Go(func() {
				d := demo(i + 1)
				if i%3 == 0 {
					d.State = api.DemoReleased
				}
				v.Put(context.Background(), d)
			})
		}
	}
	wg.Wait()
	want := demo(writes)
	waitRecord(t, one, want)
	// Both queues are written out; nothing may have taken its place.
	eventually(t, "all is written", func() error {
		if n := one.queue.len() + two.queue.len(); n > 0 {
			return fmt.Errorf("%d records wait", n)
		}
		return nil
	})
	got, ok, err := two.Get(t.Context(), leaseID)
	if err != nil || !ok || got.Revision != writes || got.Credentials != nil || got.ID != leaseID {
		t.Errorf("got %+v, %t, %v, want revision %d without credentials", got, ok, err, writes)
	}
	if ttl, err := r.do(one, "PTTL", recordKey(leaseID)).AsInt64(); err != nil || ttl <= time.Hour.Milliseconds() {
		t.Errorf("the record lives for %d ms, %v, want over an hour", ttl, err)
	}
}

// TestRealFlushAll: counters, records and scripts that vanish are no failure.
func TestRealFlushAll(t *testing.T) {
	r := startValkey(t)
	v := r.store()
	allowed(t, v, visitor, 4)
	v.Put(t.Context(), demo(1))
	waitRecord(t, v, demo(1))
	for _, words := range [][]string{{"FLUSHALL"}, {"SCRIPT", "FLUSH"}} {
		if err := r.do(v, words...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if got := allowed(t, v, visitor, 4); got != 3 {
		t.Errorf("allowed %d of 4, want a new quota of 3", got)
	}
	if _, ok, err := v.Get(t.Context(), leaseID); ok || err != nil {
		t.Errorf("record after the flush: got %t, %v, want none", ok, err)
	}
	v.Put(t.Context(), demo(2))
	waitRecord(t, v, demo(2))
	if n := testutil.ToFloat64(v.metrics.fallbacks.WithLabelValues(string(PolicyLocal))); n != 0 {
		t.Errorf("%v fallbacks, want 0", n)
	}
}

// TestRealNothingSecretIsStored looks at every key and value.
func TestRealNothingSecretIsStored(t *testing.T) {
	r := startValkey(t)
	v := r.store()
	allow(t, v, visitor)
	d := demo(1)
	v.Put(t.Context(), d)
	waitRecord(t, v, d)
	keys, err := r.do(v, "KEYS", "*").AsStrSlice()
	if err != nil || len(keys) < 3 {
		t.Fatalf("keys = %q, %v, want two counters and a record", keys, err)
	}
	dump := strings.Join(keys, "\n")
	for _, key := range keys {
		if fields, err := r.do(v, "HGETALL", key).AsStrMap(); err == nil {
			dump += fmt.Sprint(fields)
		}
		if !strings.Contains(key, probeClient) {
			if ttl, err := r.do(v, "TTL", key).AsInt64(); err != nil || ttl <= 0 {
				t.Errorf("%s lives for %d s, %v, want it to end some time", key, ttl, err)
			}
		}
	}
	for _, secret := range []string{visitor, string(leaseID), d.Credentials.Username, d.Credentials.Password, "secret of the cluster"} {
		if strings.Contains(dump, secret) {
			t.Errorf("%q is stored:\n%s", secret, dump)
		}
	}
}
