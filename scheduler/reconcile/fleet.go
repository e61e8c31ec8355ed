package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/placement"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	fleetPeriod = time.Second
	// wakePause and wakeCost are the pause, per fleet and per link, between two
	// times that all links glance at a changed view.
	wakePause = 10 * time.Millisecond
	wakeCost  = 20 * time.Microsecond
	// renderCost is the pause per link between two times that a link renders
	// what its node should do although no count of its instances has changed:
	// most changes of the view are none of its business.
	renderCost  = time.Millisecond
	renderPause = time.Second // at most
)

// fleet keeps one link per agent.
type fleet struct {
	t          *term
	holdings   *bell // rung when a node holds other checkpoints than before
	changed    *bell // rung when a node became suspect or is so no more
	generation atomic.Uint64
	pace       atomic.Int64 // pause between two renderings of a link

	mu      sync.RWMutex // guards the fields below
	links   map[api.NodeID]*link
	holders map[api.Digest]map[api.NodeID]string // base URLs of the agents

	undialled map[api.NodeID]string // URLs that are no use; the owner's
}

func newFleet(t *term) *fleet {
	return &fleet{
		t: t, holdings: &bell{}, changed: &bell{},
		links: map[api.NodeID]*link{}, holders: map[api.Digest]map[api.NodeID]string{},
		undialled: map[api.NodeID]string{},
	}
}

// run owns the links until ctx ends.
func (f *fleet) run(ctx context.Context) {
	var parts sync.WaitGroup
	defer parts.Wait()
	wake := make(chan struct{}, 1)
	defer f.t.views.add(wake)()
	defer f.holdings.add(wake)()
	members, stop := f.t.o.Members.Subscribe()
	defer stop()
	timer := time.NewTicker(fleetPeriod)
	defer timer.Stop()
	for {
		f.align(ctx, &parts)
		f.pace.Store(int64(min(renderPause, renderCost*time.Duration(len(f.links)))))
		if !sleep(ctx, max(wakePause, wakeCost*time.Duration(len(f.links))), nil) {
			return
		}
		select {
		case <-wake:
		case <-members:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// align starts and stops links, and lets all of them look at the view. Only
// the owner writes links, so it may read them without the lock.
func (f *fleet) align(ctx context.Context, parts *sync.WaitGroup) {
	wanted := planLinks(f.t.o.Log.View(), f.t.o.Members.Agents())
	for _, id := range slices.Sorted(maps.Keys(f.links)) {
		l := f.links[id]
		if m, ok := wanted[id]; !ok || m.URL != l.url {
			// Its goroutine is waited for: two links of one node would
			// contradict each other.
			l.stop()
			<-l.done
			f.drop(l)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		m := wanted[id]
		l, ok := f.links[id]
		if !ok {
			if l, ok = f.open(m); !ok {
				continue
			}
			linkCtx, cancel := context.WithCancel(ctx)
			l.stop = cancel
			parts.Go(func() {
				defer close(l.done)
				defer cancel()
				l.run(linkCtx)
			})
		}
		l.alive.Store(m.Alive)
		nudge(l.wake)
	}
}

// open makes a link that is not running yet.
func (f *fleet) open(m Member) (*link, bool) {
	if f.undialled[m.ID] == m.URL {
		return nil, false
	}
	l, err := newLink(f.t, m)
	if err != nil {
		f.undialled[m.ID] = m.URL
		f.t.logger.Warn("cannot talk to an agent", "node", m.ID, "url", m.URL, "err", err)
		return nil, false
	}
	l.alive.Store(m.Alive)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[m.ID] = l
	return l, true
}

// planLinks returns the agents to talk to: those that gossip lists, and those
// that the state counts on although gossip does not know them any more.
func planLinks(v *state.View, members []Member) map[api.NodeID]Member {
	wanted := map[api.NodeID]Member{}
	for n := range v.Nodes() {
		if n.Status == api.NodeUp && n.URL != "" {
			wanted[n.ID] = Member{ID: n.ID, URL: n.URL}
		}
	}
	for _, m := range members {
		if api.ValidName(string(m.ID)) && m.URL != "" {
			wanted[m.ID] = m
		}
	}
	return wanted
}

func (f *fleet) drop(l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.links, l.id)
	for _, nodes := range f.holders {
		delete(nodes, l.id)
	}
}

// hold notes which checkpoints a node has ready now.
func (f *fleet) hold(l *link, before, now map[api.Digest]bool) {
	f.mu.Lock()
	for digest := range before {
		if !now[digest] {
			delete(f.holders[digest], l.id)
		}
	}
	for digest := range now {
		if f.holders[digest] == nil {
			f.holders[digest] = map[api.NodeID]string{}
		}
		f.holders[digest][l.id] = l.url
	}
	f.mu.Unlock()
	f.holdings.ring()
}

// holdersOf returns the agents that hold a checkpoint, by node.
func (f *fleet) holdersOf(digest api.Digest) map[api.NodeID]string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return maps.Clone(f.holders[digest])
}

func (f *fleet) link(id api.NodeID) (*link, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	l, ok := f.links[id]
	return l, ok
}

func (f *fleet) suspect(id api.NodeID) bool {
	l, ok := f.link(id)
	return ok && l.suspect.Load()
}

// load returns what placement asks about a node as a place for a template.
func (f *fleet) load(v *state.View, id api.NodeID, ref api.TemplateRef, now time.Time) placement.NodeLoad {
	load := placement.NodeLoad{Pending: v.NodeCounts(id).Pending, SetAside: f.t.aside.is(startKey{id, ref}, now)}
	if l, ok := f.link(id); ok {
		load.Suspect = l.suspect.Load()
		load.Holds = *l.holds.Load()
	}
	return load
}
