package session

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valkey-io/valkey-go"
	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client addresses and a lease as they come in.
const (
	visitor = "203.0.113.7"
	other   = "2001:db8::7"
	leaseID = api.LeaseID("abcdefghijklmnopqrstuvwxyz")
)

// begin is when tests with a clock of their own begin.
var begin = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func demo(revision uint64) api.Demo {
	now := time.Now().UTC().Truncate(time.Second)
	return api.Demo{
		ID: leaseID, State: api.DemoActive, Template: "shop", URL: "http://d-1.demo.localhost",
		Credentials: &api.Credentials{Username: "admin", Password: "correct horse"},
		CreatedAt:   now, ExpiresAt: now.Add(time.Hour), ExtendableUntil: now.Add(2 * time.Hour), Epoch: 1, Revision: revision,
	}
}

// stored returns what of d a store keeps.
func stored(d api.Demo) api.Demo {
	d.Credentials = nil
	return d
}

// newStore returns a store that tries Valkey often, so that tests wait little.
func newStore(t *testing.T, address string, change ...func(*Options)) *Valkey {
	t.Helper()
	o := Options{
		Addresses: []string{address}, Limits: Limits{PerHour: 3, PerDay: 5}, Secret: []byte("secret of the cluster"),
		ProbeEvery: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewPedanticRegistry(),
	}
	for _, f := range change {
		f(&o)
	}
	v, err := NewValkey(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fake makes the client speak what miniredis understands.
func fake(o *Options) {
	o.tune = func(c *valkey.ClientOption) { c.AlwaysRESP2 = true }
}

// start runs v until the test ends or stop is called.
func start(t *testing.T, v *Valkey) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// onFake returns a running store on a miniredis that answers.
func onFake(t *testing.T, change ...func(*Options)) (*Valkey, *miniredis.Miniredis) {
	t.Helper()
	m := miniredis.RunT(t)
	v := newStore(t, m.Addr(), append([]func(*Options){fake}, change...)...)
	start(t, v)
	waitHealthy(t, v, true)
	return v, m
}

// eventually waits in real time.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	const patience = 20 * time.Second // the machine may be busy
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s: %v", patience, what, err)
		}
		<-ticker.C
	}
}

func waitHealthy(t *testing.T, v *Valkey, want bool) {
	t.Helper()
	eventually(t, "the store notices", func() error {
		if s := v.Status(); s.Healthy != want {
			return fmt.Errorf("status is %+v, want healthy %t", s, want)
		}
		return nil
	})
}

// waitRecord waits until the store has the record of want.
func waitRecord(t *testing.T, v *Valkey, want api.Demo) {
	t.Helper()
	eventually(t, "the record is there", func() error {
		got, ok, err := v.Get(t.Context(), want.ID)
		if err != nil || !ok || got.Revision != want.Revision {
			return fmt.Errorf("got revision %d, %t, %w; want revision %d", got.Revision, ok, err, want.Revision)
		}
		return nil
	})
}

// allow counts one request and fails the test where the answer is an error.
func allow(t *testing.T, s interface {
	Allow(context.Context, string) (api.Quota, error)
}, client string) api.Quota {
	t.Helper()
	q, err := s.Allow(t.Context(), client)
	if err != nil {
		t.Fatalf("Allow(%s): %v", client, err)
	}
	return q
}

// allowed counts how many of n requests of one client are allowed.
func allowed(t *testing.T, s interface {
	Allow(context.Context, string) (api.Quota, error)
}, client string, n int) int {
	t.Helper()
	count := 0
	for range n {
		if allow(t, s, client).Allowed {
			count++
		}
	}
	return count
}
