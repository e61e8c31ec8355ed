package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sample is what one load run measured.
type sample struct {
	latencies []time.Duration // sorted
	elapsed   time.Duration
}

// load calls do n times from so many workers, each of which waits for its
// answer before it asks again. The first error ends it.
func load(workers, n int, do func() error) (sample, error) {
	var (
		next  atomic.Int64
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error           // guarded by mu
		all   []time.Duration // guarded by mu
	)
	start := time.Now()
	for range workers {
		wg.Go(func() {
			mine := make([]time.Duration, 0, n/workers+1)
			var err error
			for err == nil && next.Add(1) <= int64(n) {
				began := time.Now()
				err = do()
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if err != nil && first == nil {
				first = err
				next.Store(int64(n)) // the others stop as well
			}
		})
	}
	wg.Wait()
	if first != nil {
		return sample{}, fmt.Errorf("after %d of %d calls: %w", len(all), n, first)
	}
	slices.Sort(all)
	return sample{latencies: all, elapsed: time.Since(start)}, nil
}

// quantile returns the latency that the share q of the calls did not exceed,
// zero where there were none.
func (s sample) quantile(q float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	return s.latencies[min(int(q*float64(len(s.latencies))), len(s.latencies)-1)]
}

// rate returns calls per second, zero where there were none.
func (s sample) rate() float64 {
	if s.elapsed == 0 {
		return 0
	}
	return float64(len(s.latencies)) / s.elapsed.Seconds()
}
