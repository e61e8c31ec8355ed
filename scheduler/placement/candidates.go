package placement

import (
	"cmp"
	"slices"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// Candidates ranks a bounded stretch of the pool, because ranking all of it
// would cost every acquire a walk over all warm instances.
const (
	// lookAhead is how many instances are ranked for each one that is asked for.
	lookAhead = 4
	// lookAtLeast is how many more, so that a single one is also chosen among
	// several nodes.
	lookAtLeast = 16
)

// Candidates lists, best first, at most limit warm instances of a template
// that may be leased. Among the longest warm ones it prefers the current
// revision, then nodes with fewer leases, counting those that it ranks before,
// then again the longest warm. skip leaves instances out; nil leaves out none.
//
// It looks at O(limit) instances besides those that it skips or that are on a
// down node.
func Candidates(v *state.View, name api.TemplateName, limit int, skip func(*state.Instance) bool) []*state.Instance {
	t, ok := v.Template(name)
	if !ok || limit <= 0 {
		return nil
	}
	var found []candidate
	uses := map[api.NodeID]*nodeUse{}
	for i := range v.InstancesOf(name, api.InstanceWarm) {
		use := useOf(v, uses, i.Node)
		if !use.up || skip != nil && skip(i) {
			continue
		}
		found = append(found, use.rank(i, i.Template.Revision == t.Revision))
		if (len(found)-lookAtLeast)/lookAhead >= limit {
			break
		}
	}
	slices.SortStableFunc(found, candidate.compare) // stable: the longest warm is first already
	best := make([]*state.Instance, 0, min(limit, len(found)))
	for _, c := range found[:cap(best)] {
		best = append(best, c.instance)
	}
	return best
}

// candidate is an instance with what its rank depends on.
type candidate struct {
	instance *state.Instance
	outdated int // 0 for the current revision
	leases   int // on its node, once everything that ranks before it is leased
}

func (c candidate) compare(d candidate) int {
	return cmp.Or(cmp.Compare(c.outdated, d.outdated), cmp.Compare(c.leases, d.leases))
}

// nodeUse is what one call has learnt of a node.
type nodeUse struct {
	up     bool
	leases int
	ranked [2]int // instances ranked so far: of the current revision, of others
}

func useOf(v *state.View, uses map[api.NodeID]*nodeUse, id api.NodeID) *nodeUse {
	use, known := uses[id]
	if !known {
		n, exists := v.Node(id)
		use = &nodeUse{up: exists && n.Status == api.NodeUp, leases: v.NodeCounts(id).Leased}
		uses[id] = use
	}
	return use
}

// rank counts an instance as leased for those behind it. Otherwise a burst
// would empty the node with the fewest leases before it turned to the next.
func (u *nodeUse) rank(i *state.Instance, current bool) candidate {
	c := candidate{instance: i}
	if !current {
		c.outdated = 1
	}
	c.leases = u.leases + u.ranked[c.outdated]
	u.ranked[c.outdated]++
	return c
}
