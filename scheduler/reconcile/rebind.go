package reconcile

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/placement"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// rebindBatch bounds the moves of one round.
	rebindBatch = 64
	// loseAfter is how long a lease without a serving instance waits for a
	// warm one.
	loseAfter = 2 * time.Minute
	// scanPeriod is how often all leases are looked at, for those whose
	// instance has left no trace.
	scanPeriod = 30 * time.Second
)

// rebinder moves leases whose instance does not serve any more.
type rebinder struct {
	t       *term
	waiting map[api.LeaseID]time.Time // when a broken lease was first seen
	scanned time.Time                 // when all leases were last looked at
}

func (t *term) rebinding() loop {
	r := &rebinder{t: t, waiting: map[api.LeaseID]time.Time{}}
	return loop{
		name: "rebind", period: time.Second, pause: 20 * time.Millisecond,
		bells: []*bell{t.views, t.fleet.changed}, round: r.round,
	}
}

func (r *rebinder) round(ctx context.Context) (next time.Time, err error) {
	v := r.t.o.Log.View()
	now := time.Now() // waiting is measured by this process's clock
	leases := brokenLeases(v)
	for id := range r.waiting {
		if l, ok := v.Lease(id); ok && broken(v, l) {
			leases[id] = l
		}
	}
	if now.Sub(r.scanned) >= scanPeriod {
		r.scanned = now
		scanLeases(v, leases)
	}
	for id := range leases {
		if _, ok := r.waiting[id]; !ok {
			r.waiting[id] = now
		}
	}
	maps.DeleteFunc(r.waiting, func(id api.LeaseID, _ time.Time) bool { return leases[id] == nil })

	p := planRebind(v, leases, r.waiting, r.t.fleet.suspect, clocks{decide: r.t.now(v), local: now})
	r.t.want(p.demand)
	if err := r.t.execute(ctx, p.actions); err != nil {
		return time.Time{}, err
	}
	if len(p.actions) == rebindBatch {
		next = time.Now()
	}
	return next, nil
}

// want tells the pools how many instances broken leases wait for.
func (t *term) want(demand map[api.TemplateName]int) {
	if !maps.Equal(demand, t.wanted()) {
		t.demand.Store(&demand)
		t.demands.ring()
	}
}

func (t *term) wanted() map[api.TemplateName]int {
	if d := t.demand.Load(); d != nil {
		return *d
	}
	return nil
}

// broken reports whether an active lease has no instance that serves.
func broken(v *state.View, l *state.Lease) bool {
	if l.State.Ended() {
		return false
	}
	i, ok := v.Instance(l.Instance)
	if !ok || i.State != api.InstanceLeased || i.Lease != l.ID {
		return true
	}
	n, ok := v.Node(i.Node)
	return !ok || n.Status != api.NodeUp
}

// brokenLeases finds broken leases by what is left of their instances: failed
// ones, and those on down nodes.
func brokenLeases(v *state.View) map[api.LeaseID]*state.Lease {
	found := map[api.LeaseID]*state.Lease{}
	look := func(i *state.Instance) {
		if i.Lease == "" {
			return
		}
		if l, ok := v.Lease(i.Lease); ok && l.Instance == i.ID && broken(v, l) {
			found[l.ID] = l
		}
	}
	for t := range v.Templates() {
		for i := range v.InstancesOf(t.Spec.Name, api.InstanceFailed) {
			look(i)
		}
	}
	for n := range v.Nodes() {
		if n.Status == api.NodeUp {
			continue
		}
		for i := range v.InstancesOn(n.ID) {
			look(i)
		}
	}
	return found
}

// scanLeases adds every broken lease to found.
func scanLeases(v *state.View, found map[api.LeaseID]*state.Lease) {
	for l := range v.LeasesByExpiry() {
		if broken(v, l) {
			found[l.ID] = l
		}
	}
}

// clocks are the time that commands are judged by, and that of this process.
type clocks struct{ decide, local time.Time }

// moves is what is to be done about broken leases.
type moves struct {
	actions []action                 // the longest waiting first
	demand  map[api.TemplateName]int // instances that are missing for the rest
}

// planRebind gives each broken lease a warm instance, while there are any, and
// gives up those that waited too long.
func planRebind(v *state.View, leases map[api.LeaseID]*state.Lease, waiting map[api.LeaseID]time.Time,
	suspect func(api.NodeID) bool, now clocks) moves {
	line := slices.SortedFunc(maps.Values(leases), func(a, b *state.Lease) int {
		return cmp.Or(waiting[a.ID].Compare(waiting[b.ID]), cmp.Compare(a.ID, b.ID))
	})
	p := moves{demand: map[api.TemplateName]int{}}
	warm := map[api.TemplateName][]*state.Instance{}
	for _, l := range line {
		name := l.Template.Name
		if len(p.actions) == rebindBatch || !l.ExpiresAt.After(now.decide) {
			continue // the next round's, or over: then expiry ends it
		}
		if _, ok := warm[name]; !ok {
			warm[name] = placement.Candidates(v, name, rebindBatch, func(i *state.Instance) bool { return suspect(i.Node) })
		}
		switch {
		case len(warm[name]) > 0:
			i := warm[name][0]
			warm[name] = warm[name][1:]
			p.actions = append(p.actions, action{lease: l.ID, cmd: state.RebindLease{
				Lease: l.ID, Revision: l.Revision, Instance: i.ID, InstanceRevision: i.Revision,
			}})
		case now.local.Sub(waiting[l.ID]) >= loseAfter:
			p.actions = append(p.actions, action{lease: l.ID, cmd: state.LoseLease{Lease: l.ID, Revision: l.Revision}})
		default:
			p.demand[name]++
		}
	}
	return p
}
