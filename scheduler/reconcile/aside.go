package reconcile

import (
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// asideMost is the longest that a node is left alone after failures.
const asideMost = 5 * time.Minute

// startKey is what failures are counted by. A template that fails everywhere
// must not take the nodes from all others, and a new revision is a new chance.
type startKey struct {
	node     api.NodeID
	template api.TemplateRef
}

// aside remembers which nodes failed to start a template lately.
type aside struct {
	mu     sync.Mutex // guards the field below
	memory map[startKey]setback
}

type setback struct {
	failures int // in a row
	until    time.Time
}

func newAside() *aside { return &aside{memory: map[startKey]setback{}} }

// failed counts a failure. Those of starts that were under way when the node
// was set aside tell nothing new.
func (a *aside) failed(k startKey, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.memory[k]
	if now.Before(s.until) {
		return
	}
	s.failures++
	s.until = now.Add(min(asideMost, time.Second<<min(s.failures, 10)))
	a.memory[k] = s
}

func (a *aside) succeeded(k startKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.memory, k)
}

func (a *aside) is(k startKey, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.memory[k].until)
}
