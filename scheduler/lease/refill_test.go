package lease

import (
	"testing"
	"time"
)

func TestRefill(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	steady := func(n int, gap time.Duration) (at []time.Time) {
		for i := range n {
			at = append(at, start.Add(time.Duration(i)*gap))
		}
		return at
	}
	var groups []time.Time // of eight, every eight seconds
	for i := range 80 {
		groups = append(groups, start.Add(time.Duration(i/8)*8*time.Second))
	}
	cases := []struct {
		name      string
		at        []time.Time
		position  int
		low, high time.Duration
	}{
		{"nothing measured", nil, 1, unknownRetry, unknownRetry},
		{"one is no rate", steady(1, 0), 9, unknownRetry, unknownRetry},
		{"first in line", steady(5, 3*time.Second), 1, 3 * time.Second, 3 * time.Second},
		{"fourth in line", steady(5, 3*time.Second), 4, 12 * time.Second, 12 * time.Second},
		{"far behind", steady(5, 3*time.Second), 1000, maxRetry, maxRetry},
		{"fast", steady(100, time.Millisecond), 10, minRetry, minRetry},
		{"all at once", steady(10, 0), 1, minRetry, minRetry},
		{"in groups", groups, 10, 6 * time.Second, 14 * time.Second},
		{"backwards", []time.Time{start.Add(2 * time.Second), start, start.Add(4 * time.Second)}, 5, 5 * time.Second, 5 * time.Second},
		{"after a quiet night", append(steady(5, 2*time.Second), start.Add(8*time.Hour)), 1, 2 * time.Second, 2 * time.Second},
		{"faster than it was", append(steady(20, 20*time.Second), func() (at []time.Time) {
			for i := range 60 {
				at = append(at, start.Add(400*time.Second).Add(time.Duration(i)*2*time.Second))
			}
			return at
		}()...), 1, 2 * time.Second, 4 * time.Second},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRefill()
			for _, at := range c.at {
				r.warmed("shop", at)
			}
			if got := r.retryAfter("shop", c.position); got < c.low || got > c.high {
				t.Errorf("retryAfter(%d) = %s, want from %s to %s", c.position, got, c.low, c.high)
			}
			if got := r.retryAfter("cart", 1); got != unknownRetry {
				t.Errorf("another template: %s, want %s", got, unknownRetry)
			}
		})
	}
}

// TestRetryAfterCountsTheLine turns somebody away behind a line.
func TestRetryAfterCountsTheLine(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		for range 3 {
			w.Warmed("shop", time.Now())
			time.Sleep(4 * time.Second)
		}
		q := w.queue(5, 10*time.Second)
		_, _, err := w.acquire("")
		if e := wantCode(t, "behind five", err, "exhausted"); e.RetryAfter != 24*time.Second {
			t.Errorf("RetryAfter = %s, want 24s", e.RetryAfter)
		}
		q.done.Wait()
	})
}
