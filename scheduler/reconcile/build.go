package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	buildBackoff     = 15 * time.Second
	buildBackoffMost = 10 * time.Minute
	// buildBatch bounds the builds and removals that one round begins.
	buildBatch = 32
)

// planBuilds starts a build for every current revision and host class that has
// none, tries failed ones again, and forgets checkpoints that nobody can use.
func planBuilds(v *state.View, suspect func(api.NodeID) bool, now time.Time) []action {
	b := builder{v: v, now: now, classes: map[api.HostClass][]*state.Node{}, busy: map[api.NodeID]int{}}
	for n := range v.Nodes() {
		if n.Status == api.NodeUp && n.Restores && !suspect(n.ID) {
			b.classes[n.HostClass] = append(b.classes[n.HostClass], n)
		}
	}
	for c := range v.Checkpoints() {
		if c.State == api.CheckpointBuilding {
			b.busy[c.Builder]++
		}
	}
	for t := range v.Templates() {
		for _, class := range slices.Sorted(maps.Keys(b.classes)) {
			b.build(state.CheckpointKey{Template: t.Ref(), HostClass: class})
		}
	}
	for c := range v.Checkpoints() {
		b.retire(c)
	}
	return b.actions
}

type builder struct {
	v       *state.View
	now     time.Time
	classes map[api.HostClass][]*state.Node // that can build
	busy    map[api.NodeID]int              // builds under way
	actions []action
}

func (b *builder) build(key state.CheckpointKey) {
	old, known := b.v.Checkpoint(key)
	attempt, last := uint64(1), api.NodeID("")
	if known {
		if !b.again(old) {
			return
		}
		attempt, last = old.Attempt+1, old.Builder
	}
	if len(b.actions) == buildBatch {
		return
	}
	best := slices.MinFunc(b.classes[key.HostClass], func(x, y *state.Node) int {
		return cmp.Or(
			compareBool(x.ID == last, y.ID == last), // another node, if there is one
			cmp.Compare(b.busy[x.ID], b.busy[y.ID]),
			// The ratios of load without their division.
			cmp.Compare(b.v.NodeCounts(x.ID).Total()*y.Capacity, b.v.NodeCounts(y.ID).Total()*x.Capacity),
			cmp.Compare(x.ID, y.ID),
		)
	})
	b.busy[best.ID]++
	b.actions = append(b.actions, action{cmd: state.StartBuild{Key: key, Builder: best.ID, Attempt: attempt}})
}

// again reports whether another attempt is due. The time doubles with each:
// instances start cold meanwhile, and a build costs a node a lot.
func (b *builder) again(c *state.Checkpoint) bool {
	switch c.State {
	case api.CheckpointFailed:
		wait := min(buildBackoffMost, buildBackoff<<min(c.Attempt-1, 10))
		return !b.now.Before(c.ChangedAt.Add(wait))
	case api.CheckpointBuilding:
		n, ok := b.v.Node(c.Builder)
		return !ok || n.Status != api.NodeUp
	default:
		return false
	}
}

// retire forgets the checkpoint of an old revision that no instance uses.
func (b *builder) retire(c *state.Checkpoint) {
	t, ok := b.v.Template(c.Key.Template.Name)
	if len(b.actions) == buildBatch || ok && t.Revision == c.Key.Template.Revision || b.used(c) {
		return
	}
	b.actions = append(b.actions, action{cmd: state.RemoveCheckpoint{Key: c.Key}})
}

func (b *builder) used(c *state.Checkpoint) bool {
	if c.Digest == "" {
		return false
	}
	for _, s := range []api.InstanceState{api.InstancePending, api.InstanceWarm, api.InstanceLeased, api.InstanceEnding, api.InstanceFailed} {
		for i := range b.v.InstancesOf(c.Key.Template.Name, s) {
			if i.Checkpoint == c.Digest {
				return true
			}
		}
	}
	return false
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
