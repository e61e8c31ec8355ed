package reconcile

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// errorPause keeps a loop whose proposals fail from being woken into failing
// again at once.
const errorPause = time.Second

// loop is work in rounds, each of which plans and executes.
type loop struct {
	name   string
	period time.Duration // at most between rounds, less some jitter
	pause  time.Duration // at least between rounds
	bells  []*bell       // what wakes it sooner
	// share makes the pause that many times as long as the round took, where a
	// round costs O(everything): a view that grows then makes rounds rarer and
	// never starves the requests of visitors.
	share time.Duration
	// round returns when the next one is due, or the zero time.
	round func(ctx context.Context) (next time.Time, err error)
}

// repeat runs the rounds of l until ctx ends.
func (t *term) repeat(ctx context.Context, l loop) {
	wake := make(chan struct{}, 1)
	for _, b := range l.bells {
		defer b.add(wake)()
	}
	failing := false
	for {
		start := time.Now()
		next, err := l.round(ctx)
		took := time.Since(start)
		t.metrics.round(l.name, took, err)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			t.logger.Warn("a round failed; trying again", "loop", l.name, "err", err)
		case err == nil && failing:
			t.logger.Info("rounds succeed again", "loop", l.name)
		}
		failing = err != nil

		pause := max(l.pause, took*l.share)
		if failing {
			pause = max(pause, errorPause)
		}
		wait := jitter(l.period)
		if !next.IsZero() {
			wait = min(wait, time.Until(next))
		}
		if !sleep(ctx, pause, nil) || !sleep(ctx, wait-pause, wake) {
			return
		}
	}
}

// jitter returns up to a fifth less than d, so that the loops of a process do
// not all run at once.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

// sleep waits for d or until it is woken, and returns false when ctx ends.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// bell tells any number of listeners to look again.
type bell struct {
	mu   sync.Mutex // guards ears
	ears []chan struct{}
}

// add lets ear, which has room for one, hear the bell until the returned
// function is called.
func (b *bell) add(ear chan struct{}) (remove func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ears = append(b.ears, ear)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ears = slices.DeleteFunc(b.ears, func(e chan struct{}) bool { return e == ear })
	}
}

// ring never waits: who has not looked since the last ring will see both.
func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ear := range b.ears {
		nudge(ear)
	}
}

func nudge(ear chan struct{}) {
	select {
	case ear <- struct{}{}:
	default:
	}
}
