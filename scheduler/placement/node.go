package placement

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// NodeLoad is what the leader knows of a node beyond the view.
type NodeLoad struct {
	Pending  int  // instances that are starting there, those included that the view does not show yet
	SetAside bool // it failed lately and is not asked for a while
	Suspect  bool // it cannot be reached right now
	Holds    map[api.Digest]bool
}

// Target is where the next instance starts.
type Target struct {
	Node       api.NodeID
	Checkpoint api.Digest // empty: cold
}

// PickNode chooses where the next instance of a template starts, or says in
// plain words why nowhere. It prefers the node with the fewest instances of the
// template, then one that holds the checkpoint, then the emptiest, then the
// first by ID. It costs O(nodes + instances of the template).
func PickNode(v *state.View, t *state.Template, load func(api.NodeID) NodeLoad, maxPending int) (Target, string) {
	own := instancesPerNode(v, t.Spec.Name)
	var best option
	var out refusals
	nodes := 0
	for n := range v.Nodes() {
		nodes++
		o := option{node: n, load: load(n.ID), own: own[n.ID]}
		o.total = o.expected(v.NodeCounts(n.ID))
		why := o.usable(maxPending)
		if why == fits {
			o.checkpoint, why = checkpointFor(v, t, n)
		}
		out[why]++
		if why == fits && (best.node == nil || o.compare(best) < 0) {
			best = o
		}
	}
	if best.node == nil {
		return Target{}, out.explain(nodes)
	}
	return Target{Node: best.node.ID, Checkpoint: best.checkpoint}, ""
}

// instancesPerNode counts those instances of a template, of all revisions,
// that serve or will.
func instancesPerNode(v *state.View, name api.TemplateName) map[api.NodeID]int {
	count := map[api.NodeID]int{}
	for _, s := range []api.InstanceState{api.InstancePending, api.InstanceWarm, api.InstanceLeased} {
		for i := range v.InstancesOf(name, s) {
			count[i.Node]++
		}
	}
	return count
}

// checkpointFor returns the checkpoint that a usable node would restore, empty
// for a cold boot. A build that runs, or that this very node could do, is
// waited for: cold boots meanwhile would slow it down, and give instances that
// took many times as long.
func checkpointFor(v *state.View, t *state.Template, n *state.Node) (api.Digest, refusal) {
	if !n.Restores {
		return "", fits
	}
	c, known := v.Checkpoint(state.CheckpointKey{Template: t.Ref(), HostClass: n.HostClass})
	switch {
	case !known:
		return "", awaitsBuild
	case c.State == api.CheckpointReady:
		return c.Digest, fits
	case c.State == api.CheckpointFailed:
		return "", fits
	default:
		return "", awaitsBuild
	}
}

// option is a node with what its rank depends on.
type option struct {
	node       *state.Node
	load       NodeLoad
	own        int // instances of the template on it
	total      int // instances of all templates on it
	checkpoint api.Digest
}

// expected counts the instances on the node, and those that the caller knows to
// be on their way and that the view does not show yet.
func (o option) expected(c state.Counts) int {
	return c.Total() + max(0, o.load.Pending-c.Pending)
}

func (o option) usable(maxPending int) refusal {
	switch {
	case o.node.Status != api.NodeUp:
		return isDown
	case o.load.Suspect:
		return isSuspect
	case o.load.SetAside:
		return isSetAside
	case o.total >= o.node.Capacity:
		return isFull
	case o.load.Pending >= maxPending:
		return isBusy
	default:
		return fits
	}
}

func (o option) holds() int {
	if o.checkpoint != "" && o.load.Holds[o.checkpoint] {
		return 0
	}
	return 1
}

func (o option) compare(p option) int {
	return cmp.Or(
		cmp.Compare(o.own, p.own),
		cmp.Compare(o.holds(), p.holds()),
		// The ratios of load without their division. Capacities are above 0:
		// others are full.
		cmp.Compare(o.total*p.node.Capacity, p.total*o.node.Capacity),
		cmp.Compare(o.node.ID, p.node.ID),
	)
}

// refusal is why a node was not an option.
type refusal int

const (
	fits refusal = iota
	isDown
	isSuspect
	isSetAside
	isFull
	isBusy
	awaitsBuild
	refusalCount
)

// refusals counts nodes by why they were no option.
type refusals [refusalCount]int

var refusalWords = [refusalCount]string{
	isDown:      "down",
	isSuspect:   "out of reach right now",
	isSetAside:  "set aside after failures",
	isFull:      "full",
	isBusy:      "starting as many instances as allowed at once",
	awaitsBuild: "waiting for the checkpoint to be built",
}

// explain says why none of the nodes will do.
func (r refusals) explain(nodes int) string {
	if nodes == 0 {
		return "no node has joined the cluster yet"
	}
	var parts []string
	for why, n := range r {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, refusalWords[why]))
		}
	}
	return fmt.Sprintf("no node can start an instance: of %d, %s", nodes, strings.Join(parts, ", "))
}
