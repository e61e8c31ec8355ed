package reconcile

import (
	"context"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// sweepBatch bounds one round over the down nodes.
const sweepBatch = 256

// sweeping forgets what down nodes had. A node that returns removes whatever
// the complete Desired does not name.
func (t *term) sweeping() loop {
	return loop{name: "sweep", period: 2 * time.Second, pause: 20 * time.Millisecond, bells: []*bell{t.views}, round: t.sweep}
}

func (t *term) sweep(ctx context.Context) (next time.Time, err error) {
	actions := planSweep(t.o.Log.View(), sweepBatch)
	if err := t.execute(ctx, actions); err != nil {
		return time.Time{}, err
	}
	if len(actions) == sweepBatch {
		next = time.Now()
	}
	return next, nil
}

// planSweep plans at most limit steps for the instances on down nodes. Leased
// ones stay on record until their leases have moved.
func planSweep(v *state.View, limit int) []action {
	var actions []action
	for n := range v.Nodes() {
		if n.Status != api.NodeDown {
			continue
		}
		for i := range v.InstancesOn(n.ID) {
			if len(actions) == limit {
				return actions
			}
			switch i.State {
			case api.InstancePending, api.InstanceWarm:
				actions = append(actions, action{cmd: state.EndInstance{ID: i.ID, Revision: i.Revision, Reason: "its node is down"}})
			case api.InstanceEnding, api.InstanceFailed:
				if !awaited(v, i) {
					actions = append(actions, action{cmd: state.RemoveInstance{ID: i.ID}})
				}
			}
		}
	}
	return actions
}
