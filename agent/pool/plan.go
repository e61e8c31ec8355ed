package pool

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// orphanGrace is how long containers that nobody has named yet are kept
	// after the first word of a leader, so that a leader which is still
	// learning the cluster does not cost running demos.
	orphanGrace = 10 * time.Second

	// leaseSlack lets a leader that is connected end a lease first: the agent's
	// own clock is the last resort.
	leaseSlack = 2 * time.Second

	// discardGrace keeps a checkpoint that nobody needs for a while, because
	// fetching it again is dear.
	discardGrace = 5 * time.Minute
)

// Plan returns what to do now, sorted: equal input gives equal output, and
// once every action is under way a second plan is empty.
func Plan(d Desired, a Actual, now time.Time) []Action {
	p := planner{d: d, a: a, now: now, wanted: make(map[api.InstanceID]api.DesiredInstance, len(d.Instances))}
	for _, want := range d.Instances {
		p.wanted[want.ID] = want
	}
	for _, id := range slices.Sorted(maps.Keys(a.Instances)) {
		p.existing(a.Instances[id])
	}
	if !d.Heard.IsZero() {
		p.checkpoints()
		p.builds()
		p.missing()
	}
	slices.SortStableFunc(p.actions, func(x, y Action) int { return cmp.Compare(x.Kind, y.Kind) })
	return p.actions
}

type planner struct {
	d       Desired
	a       Actual
	now     time.Time
	wanted  map[api.InstanceID]api.DesiredInstance
	actions []Action
}

func (p *planner) add(a Action) { p.actions = append(p.actions, a) }

// overdue reports whether the lease of an instance ran out on our own clock.
func (p *planner) overdue(id api.InstanceID) bool {
	deadline, ok := p.d.Deadlines[id]
	return ok && p.now.After(deadline.Add(leaseSlack))
}

// unwanted reports whether an instance must go because no leader names it.
func (p *planner) unwanted(i Instance) bool {
	if _, ok := p.wanted[i.ID]; ok || p.d.Heard.IsZero() {
		return false
	}
	return i.Named || !p.now.Before(p.d.Heard.Add(orphanGrace))
}

// existing plans for an instance that there is a record of.
func (p *planner) existing(i Instance) {
	want, wanted := p.wanted[i.ID]
	unwanted, overdue := p.unwanted(i), p.overdue(i.ID)
	leasedNow := wanted && !p.d.Heard.IsZero() && want.State == api.InstanceLeased && want.Epoch >= i.Epoch
	switch {
	case i.Busy:
		if i.State == api.InstanceRestoring && !i.Cancelled && (unwanted || overdue) {
			p.add(Action{Kind: Cancel, Instance: i.ID})
		}
	case i.Exists && overdue && !unwanted:
		p.remove(i, "its lease ran out on this node's clock")
	case i.Exists && (unwanted || i.State == api.InstanceFailed):
		p.remove(i, i.Reason)
	case i.halfStarted() && leasedNow, i.State == api.InstanceWarm && leasedNow,
		i.State == api.InstanceLeased && leasedNow && want.Epoch > i.Epoch:
		// A leader leases only what was reported warm, so a lease also proves
		// a container whose record was lost.
		p.add(Action{Kind: Lease, Instance: i.ID, Epoch: want.Epoch})
	case i.halfStarted() && wanted && !p.d.Heard.IsZero():
		p.remove(i, "it was left half started by a restart of the agent")
	case !i.Exists && unwanted:
		p.add(Action{Kind: Forget, Instance: i.ID})
	}
}

func (p *planner) remove(i Instance, reason string) {
	if p.now.Before(i.RetryAt) {
		return
	}
	p.add(Action{Kind: Remove, Instance: i.ID, Reason: reason})
}

// missing plans for instances that are desired and that there is no record of.
func (p *planner) missing() {
	room := p.a.Capacity
	for _, i := range p.a.Instances {
		if i.Exists {
			room--
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.wanted)) {
		want := p.wanted[id]
		if _, ok := p.a.Instances[id]; ok {
			continue
		}
		reason, wait := p.obstacle(want)
		switch {
		case reason != "":
			p.add(Action{Kind: Fail, Instance: id, Reason: reason})
		case !wait && room > 0:
			room--
			p.add(Action{Kind: Start, Instance: id})
		}
	}
}

// obstacle returns why an instance cannot be started here at all, or whether
// it has to wait for its checkpoint.
func (p *planner) obstacle(want api.DesiredInstance) (reason string, wait bool) {
	switch {
	case want.State == api.InstanceLeased:
		// A fresh instance in the place of a leased one would show the visitor
		// an empty shop under the same epoch.
		return "the leased instance is not on this node", false
	case want.Checkpoint == "":
		return "", false
	case !p.a.Restores:
		return "this node does not restore: " + p.a.Reason, false
	}
	c, ok := p.a.Checkpoints[want.Checkpoint]
	switch {
	case ok && c.State == api.CheckpointReady:
		return "", false
	case ok && c.State == api.CheckpointFailed:
		return fmt.Sprintf("checkpoint %.12s is not here: %s", want.Checkpoint, c.Reason), false
	case !slices.ContainsFunc(p.d.Checkpoints, func(s api.CheckpointSource) bool { return s.Digest == want.Checkpoint }):
		return fmt.Sprintf("checkpoint %.12s is not here, and nobody said where to fetch it", want.Checkpoint), false
	}
	return "", true
}

func (p *planner) checkpoints() {
	needed := p.d.neededCheckpoints(p.a.Builds)
	if p.a.Restores {
		for _, src := range p.d.Checkpoints {
			c := p.a.Checkpoints[src.Digest]
			waiting := c.State == api.CheckpointFailed && p.now.Before(c.RetryAt) && slices.Equal(c.Sources, src.Sources)
			if !c.Busy && c.State != api.CheckpointReady && !waiting {
				p.add(Action{Kind: Fetch, Digest: src.Digest})
			}
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(p.a.Checkpoints)) {
		c := p.a.Checkpoints[digest]
		due := !c.UnneededSince.IsZero() && !p.now.Before(c.UnneededSince.Add(discardGrace)) && !p.now.Before(c.RetryAt)
		if !needed[digest] && !c.Busy && due {
			p.add(Action{Kind: Discard, Digest: digest})
		}
	}
}

// neededCheckpoints returns the checkpoints that must stay: those that d
// names, and what builds that d still asks for have produced.
func (d Desired) neededCheckpoints(builds map[api.TemplateRef]Build) map[api.Digest]bool {
	needed := map[api.Digest]bool{}
	for _, src := range d.Checkpoints {
		needed[src.Digest] = true
	}
	for _, want := range d.Instances {
		needed[want.Checkpoint] = true
	}
	for _, b := range d.Builds {
		needed[builds[b.Template].Digest] = true
	}
	delete(needed, "")
	return needed
}

func (p *planner) builds() {
	asked := map[api.TemplateRef]bool{}
	for _, b := range p.d.Builds {
		asked[b.Template] = true
		if done, ok := p.a.Builds[b.Template]; !ok || !done.Busy && done.Build.Attempt < b.Attempt {
			p.add(Action{Kind: Make, Build: b})
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(p.a.Builds), compareRefs) {
		if b := p.a.Builds[ref]; !asked[ref] && !b.Busy {
			p.add(Action{Kind: Drop, Build: b.Build})
		}
	}
}

func compareRefs(a, b api.TemplateRef) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Revision, b.Revision))
}
