package lease

import (
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// A caller is asked to come back when its turn is likely, within bounds: not
	// at once, and not so late that it gives up.
	minRetry     = time.Second
	maxRetry     = 60 * time.Second
	unknownRetry = 5 * time.Second // nothing measured yet

	// weightOf is how many instances back the measured rate remembers: their
	// weights fall with age. Nodes deliver in groups, so it must span several.
	weightOf = 20
	// idleGap is how long nothing becomes warm before it says that the pool was
	// full, and nothing about how fast it fills.
	idleGap = 60 * time.Second
)

// refill measures how fast instances of each template become warm.
type refill struct {
	mu    sync.Mutex
	rates map[api.TemplateName]rate
}

// rate is the exponentially weighted mean of the time between two instances.
type rate struct {
	last time.Time
	gap  time.Duration
	gaps int // how many were measured
}

func newRefill() *refill { return &refill{rates: map[api.TemplateName]rate{}} }

// Warmed tells that a leader's loop saw an instance become warm.
func (s *Service) Warmed(name api.TemplateName, at time.Time) { s.refill.warmed(name, at) }

func (r *refill) warmed(name api.TemplateName, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, seen := r.rates[name]
	if seen {
		gap := max(0, at.Sub(m.last)) // several can be seen out of order
		if gap <= idleGap {
			m.gaps++
			m.gap += (gap - m.gap) / time.Duration(min(m.gaps, weightOf)) // at first a plain mean
		}
	}
	if at.After(m.last) {
		m.last = at
	}
	r.rates[name] = m
}

// retryAfter is when the turn of a caller comes that is the position-th to want
// an instance.
func (r *refill) retryAfter(name api.TemplateName, position int) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.rates[name]
	if m.gaps == 0 {
		return unknownRetry
	}
	return min(max(m.gap*time.Duration(position), minRetry), maxRetry)
}
