package lease

import (
	"sync"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// watches knows who wants to hear of which lease. One pass looks up watched
// leases only, whatever else has changed.
type watches struct {
	log Log

	mu     sync.Mutex
	leases map[api.LeaseID]*watch
}

// watch is one lease and those who watch it.
type watch struct {
	revision uint64 // as last told; 0 for a lease that is not there
	changed  map[chan struct{}]struct{}
}

func newWatches(l Log) *watches { return &watches{log: l, leases: map[api.LeaseID]*watch{}} }

// Watch returns a channel that says "look again" after a lease has changed in
// this replica, and a function that ends the watch.
func (s *Service) Watch(id api.LeaseID) (changed <-chan struct{}, stop func()) {
	return s.watches.add(id)
}

func (w *watches) add(id api.LeaseID) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	one, ok := w.leases[id]
	if !ok {
		// The view is read before the caller can inspect the lease, so whatever
		// it does not see then is told.
		one = &watch{revision: revisionOf(w.log.View(), id), changed: map[chan struct{}]struct{}{}}
		w.leases[id] = one
	}
	one.changed[ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(one.changed, ch)
		if len(one.changed) == 0 && w.leases[id] == one {
			delete(w.leases, id)
		}
	}
}

// pass tells those whose lease has changed.
func (w *watches) pass() {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.log.View() // under the lock: never older than what add has noted
	for id, one := range w.leases {
		now := revisionOf(v, id)
		if now == one.revision {
			continue
		}
		one.revision = now
		for ch := range one.changed {
			select {
			case ch <- struct{}{}:
			default: // it says so already
			}
		}
	}
}

func (w *watches) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, one := range w.leases {
		n += len(one.changed)
	}
	return n
}

func revisionOf(v *state.View, id api.LeaseID) uint64 {
	if l, ok := v.Lease(id); ok {
		return l.Revision
	}
	return 0
}
