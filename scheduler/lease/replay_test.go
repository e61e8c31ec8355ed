package lease

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestAcquireReplays(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		first := w.mustAcquire("key")
		w.mustAcquire("") // the pool is empty now
		again, replayed, err := w.acquire("key")
		if err != nil || !replayed {
			t.Fatalf("repeated: %v, replayed %t", err, replayed)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("repeated (-first +second):\n%s", diff)
		}
		changed := call("key", 0)
		changed.TTL = api.Duration(2 * time.Minute)
		_, _, err = w.Acquire(t.Context(), changed)
		wantCode(t, "another request under the same key", err, api.CodeConflict)

		w.log.mu.Lock()
		w.log.refuse = notLeader()
		w.log.mu.Unlock()
		_, _, err = w.acquire("key")
		wantCode(t, "a repeated call at a leader that is none any more", err, api.CodeNotLeader)
		w.log.mu.Lock()
		w.log.refuse = nil
		w.log.mu.Unlock()

		if _, err := w.Release(t.Context(), first.ID); err != nil {
			t.Fatalf("Release: %v", err)
		}
		ended, replayed, err := w.acquire("key")
		if err != nil || !replayed || ended.State != api.DemoReleased || ended.Credentials != nil {
			t.Errorf("repeated after the end: %+v, replayed %t, %v", ended, replayed, err)
		}
		w.must(state.Collect{EndedBefore: time.Now().Add(time.Hour), Limit: 9})
		_, _, err = w.acquire("key")
		wantCode(t, "repeated after the lease was forgotten", err, api.CodeNotFound)

		time.Sleep(25 * time.Hour) // the key is over, though nobody has collected it
		w.warm()
		if fresh, replayed, err := w.acquire("key"); err != nil || replayed || fresh.ID == first.ID {
			t.Errorf("a key that is over: %+v, replayed %t, %v, want a new demo", fresh, replayed, err)
		}
	})
}

// TestAcquireReplaysConcurrently sends one request many times at once, with a
// single instance left.
func TestAcquireReplaysConcurrently(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.log.delay = 5 * time.Millisecond
		var mu sync.Mutex
		demos, fresh := map[api.LeaseID]int{}, 0
		var done sync.WaitGroup
		for range 100 {
			done.Go(func() {
				d, replayed, err := w.acquire("key")
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				demos[d.ID]++
				if !replayed {
					fresh++
				}
			})
		}
		done.Wait()
		if len(demos) != 1 || fresh != 1 {
			t.Errorf("%d demos, %d of them fresh, want one", len(demos), fresh)
		}
		if n := len(w.log.claims()); n != 1 {
			t.Errorf("%d claims were proposed, want 1", n)
		}
	})
}

// TestAcquireKeyOfAnotherRequest lets the state find out, while the pool gets
// empty: the caller must not stand in line for an instance it cannot have.
func TestAcquireKeyOfAnotherRequest(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.log.delay = time.Second
		started := time.Now()
		var done sync.WaitGroup
		done.Go(func() {
			_, _, err := w.Acquire(t.Context(), call("key", time.Minute))
			wantCode(t, "Acquire", err, api.CodeConflict)
			if took := time.Since(started); took > 2*time.Second {
				t.Errorf("the refusal took %s", took)
			}
		})
		synctest.Wait()
		// Another leader gives the key and the last instance away first.
		w.must(state.ClaimLease{
			Lease: "other", Instance: "i-0000", InstanceRevision: 2, TTL: api.Duration(time.Hour), MaxTTL: api.Duration(time.Hour),
			IdempotencyKey: "key", Fingerprint: "another request",
		})
		done.Wait()
	})
}
