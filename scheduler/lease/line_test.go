package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// queue starts n callers that stand in line in their order, and returns who was
// served and what the others got.
type queue struct {
	mu     sync.Mutex
	served []int
	failed map[int]error
	done   sync.WaitGroup
}

func (w *world) queue(n int, wait time.Duration) *queue {
	q := &queue{failed: map[int]error{}}
	for i := range n {
		q.add(w, w.t.Context(), i, wait)
	}
	return q
}

func (q *queue) add(w *world, ctx context.Context, i int, wait time.Duration) {
	q.done.Go(func() {
		_, _, err := w.Acquire(ctx, call("", wait))
		q.mu.Lock()
		defer q.mu.Unlock()
		if err != nil {
			q.failed[i] = err
			return
		}
		q.served = append(q.served, i)
	})
	synctest.Wait()
}

func TestLineIsServedInOrder(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		q := w.queue(20, time.Minute)
		for range 20 {
			time.Sleep(time.Second)
			w.warm()
			_, _, err := w.acquire("") // wants to overtake
			wantCode(t, "a caller that does not wait, behind a line", err, api.CodeExhausted)
		}
		q.done.Wait()
		if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}; !slices.Equal(q.served, want) {
			t.Errorf("served in the order %v, want %v; failed: %v", q.served, want, q.failed)
		}
	})
}

func TestLineServesSoon(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		for _, c := range []struct {
			name string
			now  func()
		}{
			{"an instance becomes warm", func() { w.warm() }},
			{"an edge confirms", func() { w.fleet.set(func(f *fakeFleet) { clear(f.unconfirmed) }) }},
			{"a node is back", func() { w.fleet.set(func(f *fakeFleet) { clear(f.suspect) }) }},
		} {
			q := w.queue(1, time.Minute)
			time.Sleep(1234 * time.Millisecond)
			start := time.Now()
			c.now()
			q.done.Wait()
			if took := time.Since(start); took > passEvery || len(q.failed) > 0 {
				t.Errorf("%s: served after %s, %v", c.name, took, q.failed)
			}
			next := api.InstanceID(fmt.Sprintf("i-%04d", w.n))
			node := api.NodeID(fmt.Sprintf("n%d", w.n%2))
			w.fleet.set(func(f *fakeFleet) {
				f.unconfirmed[next], f.suspect[node] = c.name == "an instance becomes warm", c.name == "an edge confirms"
			})
			if c.name != "a node is back" {
				w.warm()
			}
		}
	})
}

// TestLineEnds leaves the line in every way but success.
func TestLineEnds(t *testing.T) {
	t.Run("time is up", func(t *testing.T) {
		inWorld(t, 0, func(t *testing.T, w *world) {
			start := time.Now()
			q := w.queue(1, time.Hour)
			q.done.Wait()
			wantCode(t, "Acquire", q.failed[0], api.CodeExhausted)
			if took := time.Since(start); took != maxWait {
				t.Errorf("it took %s, want %s", took, maxWait)
			}
		})
	})
	t.Run("given up, and the next is served", func(t *testing.T) {
		inWorld(t, 0, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancelCause(t.Context())
			q := w.queue(0, 0)
			q.add(w, ctx, 0, time.Minute)
			q.add(w, t.Context(), 1, time.Minute)
			cancel(errors.New("gone"))
			w.warm()
			q.done.Wait()
			wantCode(t, "the one that left", q.failed[0], api.CodeUnavailable)
			if !slices.Equal(q.served, []int{1}) {
				t.Errorf("served %v, want the second", q.served)
			}
		})
	})
	t.Run("leadership is lost", func(t *testing.T) {
		inWorld(t, 0, func(t *testing.T, w *world) {
			time.Sleep(time.Second) // nothing else keeps the service awake
			q := w.queue(5, time.Minute)
			start := time.Now()
			w.log.lead(false, "s1")
			q.done.Wait()
			for i := range 5 {
				wantCode(t, "a waiting caller", q.failed[i], api.CodeNotLeader)
			}
			if took := time.Since(start); took > passEvery {
				t.Errorf("they heard of it after %s", took)
			}
		})
	})
	t.Run("the scheduler stops", func(t *testing.T) {
		inWorld(t, 0, func(t *testing.T, w *world) {
			q := w.queue(2, time.Minute)
			w.stop()
			q.done.Wait()
			wantCode(t, "a waiting caller", q.failed[1], api.CodeUnavailable)
			start := time.Now()
			_, _, err := w.Acquire(t.Context(), call("", time.Minute))
			if wantCode(t, "one that comes later", err, api.CodeExhausted); time.Since(start) != 0 {
				t.Errorf("it waited %s for nobody", time.Since(start))
			}
		})
	})
	t.Run("the line is full", func(t *testing.T) {
		inWorld(t, 0, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancel(t.Context())
			var done sync.WaitGroup
			for range maxLine {
				done.Go(func() { _, _, _ = w.Acquire(ctx, call("", time.Minute)) })
			}
			synctest.Wait()
			_, _, err := w.Acquire(t.Context(), call("", time.Minute))
			wantCode(t, "one too many", err, api.CodeExhausted)
			cancel()
			done.Wait()
		})
	})
}

// TestLineGivesAtTheLastMoment gives an instance to a caller whose context has
// just ended: whichever it notices first, the instance is not lost.
func TestLineGivesAtTheLastMoment(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		left := 0
		w.warm()
		for range 64 {
			w.fleet.set(func(f *fakeFleet) { f.suspect["n0"] = true })
			place := w.stock.take(want{name: "shop", wait: true}).waiter
			w.fleet.set(func(f *fakeFleet) { f.suspect["n0"] = false })
			w.stock.serveAll()
			i, err := w.await(ctx, place, time.Minute)
			if err != nil {
				left++
				continue
			}
			w.stock.giveBack("shop", i.ID)
		}
		if left == 0 || left == 64 {
			t.Errorf("the end of the context was noticed first %d times of 64; the test shows nothing", left)
		}
	})
}

// TestLineKeepsTheTurn loses the instance of a caller whose turn had come: it
// must not go to the end of the line.
func TestLineKeepsTheTurn(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		q := w.queue(3, time.Minute)
		w.log.fail(overtaken)
		for range 4 {
			w.warm()
			time.Sleep(time.Second)
		}
		q.done.Wait()
		if !slices.Equal(q.served, []int{0, 1, 2}) {
			t.Errorf("served in the order %v, want 0, 1, 2; failed: %v", q.served, q.failed)
		}
	})
}

// TestLineReplays lets two equal requests stand in line: one instance answers
// both.
func TestLineReplays(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		var mu sync.Mutex
		demos := map[api.LeaseID]int{}
		var done sync.WaitGroup
		for range 2 {
			done.Go(func() {
				d, _, err := w.Acquire(t.Context(), call("key", 10*time.Second))
				if err != nil {
					t.Errorf("Acquire: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				demos[d.ID]++
			})
		}
		synctest.Wait()
		w.warm()
		done.Wait()
		if len(demos) != 1 {
			t.Errorf("%d demos under one key", len(demos))
		}
	})
}

// TestLineUnderStress mixes everything and counts: whoever still waits while
// an instance is there was forgotten.
func TestLineUnderStress(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, 0, func(t *testing.T, w *world) {
			r := rand.New(rand.NewPCG(seed, 3))
			w.log.delay = time.Millisecond
			var done sync.WaitGroup
			for range 300 {
				wait := time.Duration(r.IntN(3000)) * time.Millisecond
				patience := time.Duration(1+r.IntN(5000)) * time.Millisecond
				begin := time.Duration(r.IntN(4000)) * time.Millisecond
				done.Go(func() {
					time.Sleep(begin)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					_, _, _ = w.Acquire(ctx, call("", wait))
				})
			}
			done.Go(func() {
				for range 150 {
					time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
					w.warm()
					if r.IntN(10) == 0 {
						w.log.fail(overtaken, none, uncertainBefore, notLeading, uncertainAfter)
					}
				}
			})
			for range 200 {
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				if n, free := w.stock.waiting(), w.log.View().TemplateCounts("shop").Warm; n > 0 && free > 0 && !w.stillDue() {
					t.Errorf("seed %d: %d callers wait although %d instances are warm", seed, n, free)
				}
			}
			done.Wait()
		})
	}
}

// stillDue reports whether the warm instances have come only now, or are
// claimed, so that nobody was forgotten: a pass later all is well.
func (w *world) stillDue() bool {
	time.Sleep(passEvery + time.Millisecond)
	synctest.Wait()
	w.Service.stock.mu.Lock()
	defer w.Service.stock.mu.Unlock()
	free := 0
	for i := range w.log.View().InstancesOf("shop", api.InstanceWarm) {
		if _, claimed := w.Service.stock.claimed[i.ID]; !claimed && time.Since(i.ChangedAt) > passEvery {
			free++
		}
	}
	return free == 0 || w.Service.stock.queued == 0
}
