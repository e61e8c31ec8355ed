package lease

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestAcquire(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		now := time.Now().UTC()
		got, replayed, err := w.acquire("")
		if err != nil || replayed {
			t.Fatalf("Acquire: %v, replayed %t", err, replayed)
		}
		want := api.Demo{
			ID: got.ID, State: api.DemoActive, Template: "shop",
			URL: "https://d-0000.demo.test", AdminURL: "https://d-0000.demo.test/admin/",
			Credentials: &api.Credentials{Username: "admin", Password: "pass-i-0000"},
			CreatedAt:   now, ExpiresAt: now.Add(time.Minute), ExtendableUntil: now.Add(2 * time.Hour), Epoch: 1, Revision: 1,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Acquire (-want +got):\n%s", diff)
		}
		if _, err := api.ParseLeaseID(string(got.ID)); err != nil {
			t.Errorf("lease ID: %v", err)
		}
		want.Credentials = nil
		if diff := cmp.Diff(want, w.records.demos[got.ID]); diff != "" {
			t.Errorf("session record (-want +got):\n%s", diff)
		}
		_, _, err = w.acquire("")
		if e := wantCode(t, "an empty pool", err, api.CodeExhausted); e.RetryAfter != unknownRetry {
			t.Errorf("RetryAfter = %s before anything was measured, want %s", e.RetryAfter, unknownRetry)
		}
	})
}

// TestAcquireConcurrently lets many callers want few instances.
func TestAcquireConcurrently(t *testing.T) {
	inWorld(t, 200, func(t *testing.T, w *world) {
		w.log.delay = 3 * time.Millisecond
		const callers = 1000
		var mu sync.Mutex
		winners := map[api.InstanceID]int{}
		exhausted := 0
		var done sync.WaitGroup
		for range callers {
			done.Go(func() {
				d, _, err := w.acquire("")
				mu.Lock()
				defer mu.Unlock()
				switch api.CodeOf(err) {
				case "":
					winners[w.instanceOf(d)]++
				case api.CodeExhausted:
					exhausted++
				default:
					t.Errorf("Acquire: %v", err)
				}
			})
		}
		done.Wait()
		for id, n := range winners {
			if n != 1 {
				t.Errorf("%d callers got instance %s", n, id)
			}
		}
		if len(winners) != 200 || exhausted != callers-200 {
			t.Errorf("%d winners and %d turned away, want 200 and %d", len(winners), exhausted, callers-200)
		}
		if n := len(w.log.claims()); n != 200 {
			t.Errorf("%d claims were proposed for 200 instances", n)
		}
	})
}

func TestAcquireRefusesNonsense(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		cases := []struct {
			name  string
			call  api.AcquireCall
			code  api.Code
			field string
			says  string
		}{
			{"long key", api.AcquireCall{IdempotencyKey: strings.Repeat("k", 257)}, api.CodeInvalid, "Idempotency-Key", "at most 256"},
			{"control character in key", api.AcquireCall{IdempotencyKey: "a\nb"}, api.CodeInvalid, "Idempotency-Key", "printable"},
			{"key that is not ASCII", api.AcquireCall{IdempotencyKey: "schlüssel"}, api.CodeInvalid, "Idempotency-Key", "printable"},
			{"short ttl", api.AcquireCall{AcquireRequest: api.AcquireRequest{TTL: api.Duration(9 * time.Second)}}, api.CodeInvalid, "ttl", "from 10s to 2h0m0s"},
			{"negative ttl", api.AcquireCall{AcquireRequest: api.AcquireRequest{TTL: -1}}, api.CodeInvalid, "ttl", "from 10s to 2h0m0s"},
			{"long ttl", api.AcquireCall{AcquireRequest: api.AcquireRequest{TTL: api.Duration(3 * time.Hour)}}, api.CodeInvalid, "ttl", "from 10s to 2h0m0s"},
			{"unknown template", api.AcquireCall{AcquireRequest: api.AcquireRequest{Template: "cart"}}, api.CodeNotFound, "", "no template cart"},
			{"hostile template", api.AcquireCall{AcquireRequest: api.AcquireRequest{Template: "<b>\x00"}}, api.CodeNotFound, "", "of this name"},
		}
		for _, c := range cases {
			_, _, err := w.Acquire(t.Context(), c.call)
			e := wantCode(t, c.name, err, c.code)
			if !strings.Contains(e.Message, c.says) {
				t.Errorf("%s: message %q, want one with %q", c.name, e.Message, c.says)
			}
			if c.field != "" && (len(e.Fields) != 1 || e.Fields[0].Field != c.field) {
				t.Errorf("%s: fields %+v, want one about %s", c.name, e.Fields, c.field)
			}
		}
		if d, _, err := w.Acquire(t.Context(), api.AcquireCall{IdempotencyKey: strings.Repeat("k", 256), Wait: -time.Hour}); err != nil {
			t.Errorf("the longest key and no template were refused: %v", err)
		} else if want := time.Now().Add(30 * time.Minute); !d.ExpiresAt.Equal(want) {
			t.Errorf("the default ttl ends at %s, want %s", d.ExpiresAt, want)
		}
		other := shop()
		other.Name = "cart"
		w.must(state.PutTemplate{Spec: other})
		_, _, err := w.Acquire(t.Context(), api.AcquireCall{})
		if e := wantCode(t, "no template named among two", err, api.CodeInvalid); !strings.Contains(e.Message, "cart, shop") {
			t.Errorf("message %q does not name the templates", e.Message)
		}
	})
}

// TestAcquireFaults breaks the proposal in every way.
func TestAcquireFaults(t *testing.T) {
	cases := []struct {
		name   string
		faults []fault
		code   api.Code
		claims int
		leases int
	}{
		{"not leading", []fault{notLeading}, api.CodeNotLeader, 1, 0},
		{"uncertain, not done", []fault{uncertainBefore}, api.CodeUncertain, 1, 0},
		{"uncertain, done", []fault{uncertainAfter}, api.CodeUncertain, 1, 1},
		{"overtaken", []fault{overtaken, overtaken}, "", 3, 1},
		{"overtaken, then uncertain", []fault{overtaken, uncertainAfter}, api.CodeUncertain, 2, 1},
		{"always overtaken", []fault{overtaken, overtaken, overtaken, overtaken, overtaken, overtaken, overtaken, overtaken, overtaken}, api.CodeUnavailable, maxAttempts, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 10, func(t *testing.T, w *world) {
				w.log.fail(c.faults...)
				_, _, err := w.acquire("key")
				wantCode(t, "Acquire", err, c.code)
				if n := len(w.log.claims()); n != c.claims {
					t.Errorf("%d claims were proposed, want %d", n, c.claims)
				}
				if n := w.log.View().ActiveLeases(); n != c.leases {
					t.Errorf("%d leases, want %d", n, c.leases)
				}
				w.log.fail()
				_, replayed, err := w.acquire("key")
				if err != nil || replayed != (c.leases == 1) {
					t.Errorf("the same key again: replayed %t, %v, want replayed %t", replayed, err, c.leases == 1)
				}
				if n := w.log.View().ActiveLeases(); n != 1 {
					t.Errorf("%d leases in the end, want 1", n)
				}
			})
		})
	}
}

// TestAcquirePrefersConfirmed leases what the edges serve; others only once
// they had their time.
func TestAcquirePrefersConfirmed(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.fleet.set(func(f *fakeFleet) { f.unconfirmed["i-0000"], f.unconfirmed["i-0002"] = true, true })
		if got := w.instanceOf(w.mustAcquire("")); got != "i-0001" {
			t.Errorf("leased %s, want i-0001, which the edges serve", got)
		}
		_, _, err := w.acquire("")
		wantCode(t, "only unconfirmed ones, just warm", err, api.CodeExhausted)
		time.Sleep(matured)
		w.fleet.set(func(f *fakeFleet) { f.edgesDown = true })
		if got := w.instanceOf(w.mustAcquire("")); got != "i-0000" {
			t.Errorf("leased %s, want i-0000, the longest warm", got)
		}
		w.fleet.set(func(f *fakeFleet) { f.suspect["n0"] = true })
		_, _, err = w.acquire("")
		wantCode(t, "only on a node out of reach", err, api.CodeExhausted)
		w.fleet.set(func(f *fakeFleet) { f.suspect["n0"] = false })
		w.mustAcquire("")
	})
}

// TestAcquireAmongUnconfirmed has more unconfirmed instances than a search
// passes over: those that are let through must not be leased for it.
func TestAcquireAmongUnconfirmed(t *testing.T) {
	inWorld(t, lookPast+50, func(t *testing.T, w *world) {
		w.fleet.set(func(f *fakeFleet) { f.edgesDown = true })
		_, _, err := w.acquire("")
		wantCode(t, "just warm, and no edge serves them", err, api.CodeExhausted)
		time.Sleep(matured)
		w.mustAcquire("")
	})
}

// TestAcquireBeforeAnything asks a follower, and a leader that does not know
// the template yet.
func TestAcquireBeforeAnything(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.log.lead(false, "s1")
		_, _, err := w.Acquire(t.Context(), api.AcquireCall{AcquireRequest: api.AcquireRequest{Template: "cart"}})
		wantCode(t, "a follower, of an unknown template", err, api.CodeNotLeader)
		w.log.lead(true, "s0")
		w.log.mu.Lock()
		w.log.refuse = unavailable("the barrier is not passed")
		w.log.mu.Unlock()
		_, _, err = w.Acquire(t.Context(), api.AcquireCall{AcquireRequest: api.AcquireRequest{Template: "cart"}})
		wantCode(t, "a leader that is not sure, of an unknown template", err, api.CodeUnavailable)
	})
}

// TestAcquireGivenUp ends the caller's context while its claim is on its way.
func TestAcquireGivenUp(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.log.delay = time.Second
		ctx, cancel := context.WithCancelCause(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			_, _, err := w.Acquire(ctx, call("key", 0))
			wantCode(t, "the first", err, api.CodeUncertain)
		})
		synctest.Wait()
		second, cancelSecond := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancelSecond()
		_, _, err := w.Acquire(second, call("key", 0))
		wantCode(t, "the same key, waiting for the first", err, api.CodeUnavailable)
		cancel(errors.New("gone"))
		done.Wait()
		w.log.delay = 0
		w.mustAcquire("key")
	})
}

// TestNothingSecretIsLogged looks for IDs, keys and passwords in the log.
func TestNothingSecretIsLogged(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.log.fail(overtaken)
		d := w.mustAcquire("secret-key")
		w.log.fail(overtaken)
		if _, err := w.Extend(t.Context(), d.ID, api.ExtendRequest{}); err != nil {
			t.Errorf("Extend: %v", err)
		}
		if _, err := w.Release(t.Context(), d.ID); err != nil {
			t.Errorf("Release: %v", err)
		}
		logged := w.logged.String()
		if logged == "" {
			t.Error("nothing was logged, so the test shows nothing")
		}
		for _, secret := range []string{string(d.ID), "secret-key", d.Credentials.Password} {
			if strings.Contains(logged, secret) {
				t.Errorf("the log holds %q:\n%s", secret, logged)
			}
		}
	})
}
