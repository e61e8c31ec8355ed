package session

import (
	"sync"
	"sync/atomic"
)

// tripAfter is how many calls in a row must fail before Valkey counts as down.
// One may be bad luck; with the call timeout it bounds what a dying Valkey
// costs before nobody waits for it any more.
const tripAfter = 3

// breaker remembers whether Valkey answers. Requests look at it and report to
// it; only the owner goroutine of the store tries Valkey while it is open.
type breaker struct {
	open     atomic.Bool
	failures atomic.Int32 // in a row

	mu     sync.Mutex
	reason string
}

func newBreaker() *breaker {
	b := &breaker{reason: "not connected yet"}
	b.open.Store(true)
	return b
}

// fail counts a failure and reports whether it opened the breaker.
func (b *breaker) fail(err error) bool {
	b.mu.Lock()
	b.reason = err.Error()
	b.mu.Unlock()
	return b.failures.Add(1) >= tripAfter && b.open.CompareAndSwap(false, true)
}

// succeed forgets failures of single calls.
func (b *breaker) succeed() {
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
}

// close reports whether the breaker was open.
func (b *breaker) close() bool {
	b.failures.Store(0)
	return b.open.CompareAndSwap(true, false)
}

// why returns the last failure while the breaker is open.
func (b *breaker) why() string {
	if !b.open.Load() {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reason
}
