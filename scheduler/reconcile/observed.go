package reconcile

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// pendingMost is how long a start may take, fetching its checkpoint
	// included.
	pendingMost = 10 * time.Minute
	// buildMost is how long a build may take before another attempt is made.
	buildMost = 30 * time.Minute
)

// failureReason classifies failures of instances for metrics.
type failureReason string

const (
	failedStart   failureReason = "start"   // never became warm
	failedDied    failureReason = "died"    // served before
	failedRestart failureReason = "restart" // its node began to start it anew
	failedTimeout failureReason = "timeout" // neither warm nor failed in time
)

// sighting is what is known of a node that answers.
type sighting struct {
	node     api.NodeID
	url      string
	address  string
	term     uint64 // of this leadership
	observed api.Observed
	greeted  string                    // boot of the process that has accepted a Desired of this term
	unnamed  map[api.InstanceID]uint64 // since which generation records are not named any more
}

func (l *link) saw() sighting {
	return sighting{
		node: l.id, url: l.url, address: l.address, term: l.t.number,
		observed: l.observed, greeted: l.greeted, unnamed: l.unnamed,
	}
}

// planObserved turns what a node reported into commands, in order of the
// instances. Once they are applied, a second plan is empty.
func planObserved(v *state.View, s sighting, now time.Time) []action {
	if s.observed.Term != s.term || s.observed.Boot != s.greeted {
		return nil // it does not follow this leader yet, so it cannot be counted on
	}
	n, known := v.Node(s.node)
	if next := s.record(); !known || !sameNode(*n, next) {
		// The rest is planned with the node that is then on record.
		return []action{{cmd: state.PutNode{Node: next}}}
	}
	seen := map[api.InstanceID]api.ObservedInstance{}
	for _, i := range s.observed.Instances {
		seen[i.ID] = i
	}
	var actions []action
	for i := range v.InstancesOn(s.node) {
		if a, ok := s.instance(v, i, seen, now); ok {
			actions = append(actions, a)
		}
	}
	return append(actions, s.builds(v, n, now)...)
}

// record returns the node as it should be on record.
func (s sighting) record() state.Node {
	o := s.observed.Node
	return state.Node{
		ID: s.node, URL: s.url, Address: s.address, HostClass: o.HostClass, Restores: o.Restores, Reason: o.Reason,
		Capacity: o.Capacity, Versions: o.Versions, Status: api.NodeUp,
	}
}

func sameNode(a, b state.Node) bool {
	a.ChangedAt, b.ChangedAt = time.Time{}, time.Time{}
	return a == b
}

// instance plans for one record.
func (s sighting) instance(v *state.View, i *state.Instance, seen map[api.InstanceID]api.ObservedInstance, now time.Time) (action, bool) {
	o, exists := seen[i.ID]
	switch i.State {
	case api.InstancePending:
		return s.pending(i, o, exists, now)
	case api.InstanceWarm, api.InstanceLeased:
		return s.serving(i, o, exists)
	default:
		if exists || !s.gone(i.ID) || awaited(v, i) {
			return action{}, false
		}
		return action{cmd: state.RemoveInstance{ID: i.ID}}, true
	}
}

func (s sighting) pending(i *state.Instance, o api.ObservedInstance, exists bool, now time.Time) (action, bool) {
	switch {
	case exists && o.State == api.InstanceFailed:
		return fail(i, o.Reason, failedStart), true
	case exists && o.State == api.InstanceWarm && o.Port > 0 && o.Port < 1<<16:
		return action{cmd: state.WarmInstance{
			ID: i.ID, Address: net.JoinHostPort(s.address, strconv.Itoa(o.Port)), Credentials: o.Credentials, Stages: o.Stages,
		}}, true
	case now.Sub(i.CreatedAt) >= pendingMost:
		return fail(i, fmt.Sprintf("it did not become warm within %s", pendingMost), failedTimeout), true
	}
	return action{}, false
}

// serving plans for a record that should serve. One that is merely absent is
// waited for: the agent reports it as failed, or starts it anew, which shows.
func (s sighting) serving(i *state.Instance, o api.ObservedInstance, exists bool) (action, bool) {
	switch {
	case !exists:
	case o.State == api.InstanceFailed:
		return fail(i, o.Reason, failedDied), true
	case o.State == api.InstancePending, o.State == api.InstancePrepared, o.State == api.InstanceRestoring:
		return fail(i, "its container is gone: the node began to start it anew", failedRestart), true
	}
	return action{}, false
}

func fail(i *state.Instance, reason string, class failureReason) action {
	if reason == "" {
		reason = "the node did not say why"
	}
	return action{cmd: state.FailInstance{ID: i.ID, Revision: i.Revision, Reason: reason}, lease: i.Lease, failure: class}
}

// gone reports whether the absence of a record in what was observed means that
// the node has removed it.
func (s sighting) gone(id api.InstanceID) bool {
	since, ok := s.unnamed[id]
	return ok && s.observed.Term == s.term && s.observed.Generation >= since
}

// awaited reports whether an instance that failed is what leads to its lease,
// which has to move. Its record goes once that has happened.
func awaited(v *state.View, i *state.Instance) bool {
	if i.State != api.InstanceFailed || i.Lease == "" {
		return false
	}
	l, ok := v.Lease(i.Lease)
	return ok && !l.State.Ended() && l.Instance == i.ID
}

// builds plans for the builds that the node was asked for.
func (s sighting) builds(v *state.View, n *state.Node, now time.Time) []action {
	reported := map[api.Build]api.ObservedBuild{}
	for _, b := range s.observed.Builds {
		reported[b.Build] = b
	}
	var actions []action
	for c := range v.Checkpoints() {
		if c.State != api.CheckpointBuilding || c.Builder != s.node {
			continue
		}
		done := state.FinishBuild{Key: c.Key, Attempt: c.Attempt}
		b := reported[api.Build{Template: c.Key.Template, Attempt: c.Attempt}]
		switch {
		case c.Key.HostClass != n.HostClass:
			done.Reason = fmt.Sprintf("node %s is now of host class %s", n.ID, n.HostClass)
		case b.State == api.CheckpointReady && b.Digest != "":
			done.Digest, done.Size, done.Stages = b.Digest, b.Size, b.Stages
		case b.State == api.CheckpointFailed:
			done.Reason, done.Stages = b.Reason, b.Stages
		case !n.Restores:
			done.Reason = "node " + string(n.ID) + " does not restore any more: " + n.Reason
		case now.Sub(c.ChangedAt) >= buildMost:
			done.Reason = fmt.Sprintf("it was not done within %s", buildMost)
		default:
			continue
		}
		actions = append(actions, action{cmd: done})
	}
	return actions
}
