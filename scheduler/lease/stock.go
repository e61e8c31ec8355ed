package lease

import (
	"container/list"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/placement"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// Instances are ranked for all callers of one revision of the view. The
	// first is ranked alone, because most revisions have one caller; the larger
	// the burst, the more at once, growing by handGrowth up to handSize.
	handSize   = 64
	handGrowth = 4
	// lookPast is how many unconfirmed instances are passed over at most in the
	// search of confirmed ones, so that edges that are all down do not make
	// every acquire walk through the whole pool.
	lookPast = 256
	// matured is how long an instance is warm before it is leased without the
	// confirmation of an edge: the edges had their time.
	matured = 2 * time.Second
)

// stock hands out warm instances: each to one caller at a time, and first to
// those who wait. It decides under one lock.
type stock struct {
	log    Log
	routes Routes
	nodes  Nodes
	joined chan struct{} // one place: a caller waits, look again

	mu      sync.Mutex
	claimed map[api.InstanceID]struct{} // proposed right now
	hands   map[api.TemplateName]hand
	lines   map[api.TemplateName]*list.List // of *waiter; never an empty one
	queued  int                             // waiters in all lines
	closed  bool
}

// hand is what is left of the ranking of confirmed instances in one revision
// of the view.
type hand struct {
	revision  uint64
	size      int // of the last ranking
	instances []*state.Instance
}

func newStock(l Log, r Routes, n Nodes) *stock {
	return &stock{
		log: l, routes: r, nodes: n, joined: make(chan struct{}, 1),
		claimed: map[api.InstanceID]struct{}{}, hands: map[api.TemplateName]hand{}, lines: map[api.TemplateName]*list.List{},
	}
}

// giveBack ends the claim on an instance, whatever became of it, and hands it
// to whoever waits if it is still there.
func (s *stock) giveBack(name api.TemplateName, id api.InstanceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.claimed, id)
	s.serve(name)
}

// pick claims the best instance that nobody else has claimed, or returns nil.
// The view is read under the lock: it then holds whatever became of every
// instance that was given back. The caller holds the lock.
func (s *stock) pick(name api.TemplateName) *state.Instance {
	v := s.log.View()
	i := s.confirmed(v, name)
	if i == nil {
		i = s.mature(v, name)
	}
	if i != nil {
		s.claimed[i.ID] = struct{}{}
	}
	return i
}

// confirmed returns the best instance that the edges serve.
func (s *stock) confirmed(v *state.View, name api.TemplateName) *state.Instance {
	h := s.hands[name]
	if h.revision != v.Revision() {
		h = hand{revision: v.Revision()} // equal revisions mean equal views
	}
	fresh := false
	for {
		for len(h.instances) > 0 {
			i := h.instances[0]
			h.instances = h.instances[1:]
			if !s.taken(i) && s.routes.Confirmed(i.ID) {
				s.hands[name] = h
				return i
			}
		}
		if fresh {
			delete(s.hands, name)
			return nil
		}
		h.size = min(max(1, h.size*handGrowth), handSize)
		h.instances, fresh = s.rank(v, name, h.size), true
	}
}

// rank returns at most limit instances of which the confirmed ones can be
// leased.
func (s *stock) rank(v *state.View, name api.TemplateName, limit int) []*state.Instance {
	passed := 0
	return placement.Candidates(v, name, limit, func(i *state.Instance) bool {
		if s.taken(i) {
			return true
		}
		if passed >= lookPast || s.routes.Confirmed(i.ID) {
			return false
		}
		passed++
		return true
	})
}

// mature returns the best instance that has been warm for a while. Without it
// a failure of all edges would also be one of all acquires.
func (s *stock) mature(v *state.View, name api.TemplateName) *state.Instance {
	before := stateTime(v).Add(-matured)
	found := placement.Candidates(v, name, 1, func(i *state.Instance) bool {
		return s.taken(i) || i.ChangedAt.After(before)
	})
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// taken reports whether an instance cannot be leased now, although the view
// says that it can.
func (s *stock) taken(i *state.Instance) bool {
	if _, claimed := s.claimed[i.ID]; claimed {
		return true
	}
	return s.nodes.Suspect(i.Node)
}
