package reconcile

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/placement"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// startsPerNode bounds the starts under way on one node: more of them at
	// once only make each slower.
	startsPerNode = 4
	// poolBatch bounds the starts, and the ends, of one round.
	poolBatch = 32
)

// pooler keeps the pools of all templates at their targets.
type pooler struct {
	t    *term
	said map[api.TemplateName]string // why a pool did not grow, as last logged
}

func (t *term) pooling() loop {
	p := &pooler{t: t, said: map[api.TemplateName]string{}}
	return loop{
		name: "pool", period: time.Second, pause: 50 * time.Millisecond,
		bells: []*bell{t.views, t.demands, t.fleet.changed, t.fleet.holdings}, round: p.round,
	}
}

func (p *pooler) round(ctx context.Context) (next time.Time, err error) {
	t := p.t
	v := t.o.Log.View()
	now := t.now(v)
	actions := planBuilds(v, t.fleet.suspect, now)
	plan := planPool(v, poolFacts{
		now: now, demand: t.wanted(), newID: api.NewInstanceID, newHost: t.o.NewHost,
		load: func(v *state.View, id api.NodeID, ref api.TemplateRef) placement.NodeLoad {
			return t.fleet.load(v, id, ref, time.Now())
		},
	})
	for name, why := range plan.stuck {
		if p.said[name] != why {
			t.logger.Info("a pool does not grow", "template", name, "reason", why)
		}
	}
	p.said = plan.stuck
	if err := t.execute(ctx, append(actions, plan.actions...)); err != nil {
		return time.Time{}, err
	}
	return time.Time{}, nil
}

// poolFacts are what a plan of the pools needs besides the view.
type poolFacts struct {
	now     time.Time
	demand  map[api.TemplateName]int // instances wanted above the target
	load    func(v *state.View, id api.NodeID, ref api.TemplateRef) placement.NodeLoad
	newID   func() api.InstanceID
	newHost func() string
}

// poolPlan is what to do about the pools.
type poolPlan struct {
	actions []action
	stuck   map[api.TemplateName]string // why a pool that should grow does not
}

// planPool starts what the pools lack and ends what they have too much of. Once
// it is executed, a second plan is empty, but for what the bounds left over.
func planPool(v *state.View, f poolFacts) poolPlan {
	p := &poolPlanner{v: v, f: f, starts: poolBatch, ends: poolBatch, plan: poolPlan{stuck: map[api.TemplateName]string{}}}
	for t := range v.Templates() {
		p.shrink(t)
	}
	// What was ended above has made room for the starts of any template.
	for t := range v.Templates() {
		p.grow(t)
	}
	return p.plan
}

// poolPlanner applies each step that it plans to a view of its own, so that
// the next one sees room, spread and counts as they will be.
type poolPlanner struct {
	v            *state.View
	f            poolFacts
	starts, ends int // that this round has left
	plan         poolPlan
}

func (p *poolPlanner) add(cmd state.Command) {
	p.v, _ = state.Apply(p.v, p.f.now, cmd)
	p.plan.actions = append(p.plan.actions, action{cmd: cmd})
}

// stock is what a pool has. The last of each list is the first to end.
type stock struct {
	warm, pending       []*state.Instance // of the current revision
	oldWarm, oldPending []*state.Instance // of earlier ones
}

func (p *poolPlanner) stock(t *state.Template) stock {
	var s stock
	for i := range p.v.InstancesOf(t.Spec.Name, api.InstanceWarm) {
		if i.Template.Revision == t.Revision {
			s.warm = append(s.warm, i)
		} else {
			s.oldWarm = append(s.oldWarm, i)
		}
	}
	for i := range p.v.InstancesOf(t.Spec.Name, api.InstancePending) {
		if i.Template.Revision == t.Revision {
			s.pending = append(s.pending, i)
		} else {
			s.oldPending = append(s.oldPending, i)
		}
	}
	// Stable, so that within a revision the shortest warm stays last.
	slices.SortStableFunc(s.oldWarm, func(a, b *state.Instance) int {
		return cmp.Compare(b.Template.Revision, a.Template.Revision)
	})
	return s
}

func (p *poolPlanner) target(t *state.Template) int {
	return t.Spec.Pool.Warm + p.f.demand[t.Spec.Name]
}

// shrink ends what a pool has too much of.
func (p *poolPlanner) shrink(t *state.Template) {
	s, target := p.stock(t), p.target(t)
	p.end(s.oldPending, len(s.oldPending), "its template has a newer revision")
	// Of an old revision goes what the current one has replaced, so that a
	// rollout never leaves fewer warm instances than the target.
	p.end(s.oldWarm, min(len(s.oldWarm), len(s.warm)+len(s.oldWarm)-target), "its template has a newer revision")
	p.end(s.warm, len(s.warm)-target, "the pool has more than its target")
	p.end(s.pending, min(len(s.pending), len(s.warm)+len(s.pending)-target), "the pool has more than its target")
}

// grow starts what a pool lacks.
func (p *poolPlanner) grow(t *state.Template) {
	s := p.stock(t)
	why := p.start(t, p.target(t)-len(s.warm)-len(s.pending))
	c := p.v.TemplateCounts(t.Spec.Name)
	if why == "" || c.Pending > 0 {
		return // it grows as fast as its nodes can
	}
	p.plan.stuck[t.Spec.Name] = why
	// Where every node is full of the old revision, the new one could never
	// start. One at a time makes room: the one exception to the rule above.
	if c.Ending+c.Failed == 0 && len(s.oldWarm) > 0 && p.full() {
		p.end(s.oldWarm, 1, "it makes room for a newer revision of its template")
	}
}

// end ends the last n of a list.
func (p *poolPlanner) end(list []*state.Instance, n int, reason string) {
	for ; n > 0 && p.ends > 0; n, p.ends = n-1, p.ends-1 {
		i := list[len(list)-1]
		list = list[:len(list)-1]
		p.add(state.EndInstance{ID: i.ID, Revision: i.Revision, Reason: reason})
	}
}

// start starts n instances, or says why it cannot.
func (p *poolPlanner) start(t *state.Template, n int) (why string) {
	for ; n > 0 && p.starts > 0; n, p.starts = n-1, p.starts-1 {
		target, why := placement.PickNode(p.v, t, func(id api.NodeID) placement.NodeLoad {
			return p.f.load(p.v, id, t.Ref())
		}, startsPerNode)
		if why != "" {
			return why
		}
		p.add(state.CreateInstance{
			ID: p.f.newID(), Template: t.Ref(), Node: target.Node, Checkpoint: target.Checkpoint, Host: p.f.newHost(),
		})
	}
	return ""
}

// full reports whether there are nodes and none has room.
func (p *poolPlanner) full() bool {
	up := 0
	for n := range p.v.Nodes() {
		if n.Status != api.NodeUp {
			continue
		}
		if p.v.NodeCounts(n.ID).Total() < n.Capacity {
			return false
		}
		up++
	}
	return up > 0
}
