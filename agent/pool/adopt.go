package pool

import (
	"context"
	"slices"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// listTimeout bounds one look at the runtime, which may hang.
const listTimeout = 30 * time.Second

// list asks the runtime what exists, unless it is being asked already.
func (p *Pool) list(ctx context.Context) {
	if p.listing {
		return
	}
	p.listing = true
	p.lists++
	began := p.lists
	p.workers.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		found, err := p.opts.Runtime.List(bounded)
		var stored []api.Digest
		if err == nil {
			stored, err = p.opts.Checkpoints.List(bounded)
		}
		p.results <- func(time.Time) {
			p.listing = false
			switch {
			case err != nil && ctx.Err() == nil:
				p.opts.Recorder.Failure("list")
				p.opts.Logger.Warn("cannot list the containers of this node", "err", err)
			case err == nil:
				p.compare(found, stored, began)
			}
		}
	})
}

// compare brings the records in line with what a list found that began at a
// sequence number. Records that changed since are newer than the list.
func (p *Pool) compare(found []api.ObservedInstance, stored []api.Digest, began uint64) {
	exists := make(map[api.InstanceID]api.ObservedInstance, len(found))
	for _, f := range found {
		exists[f.ID] = f
	}
	if !p.listed {
		p.listed = true
		p.adopt(exists)
		for ref, b := range p.actual.Builds {
			if !slices.Contains(stored, b.Digest) {
				delete(p.actual.Builds, ref)
			}
		}
	}
	for id, i := range p.actual.Instances {
		f, ok := exists[id]
		switch {
		case i.changed >= began || i.Busy:
		case i.Exists && (!ok || f.State == api.InstanceFailed):
			p.died(i, f, ok)
		case ok && !i.Exists:
			// A start that failed, and could not clean up either.
			p.opts.Logger.Warn("a failed instance left its container", "instance", id)
			i.Exists = true
			p.set(i)
		}
	}
	for id, f := range exists {
		if _, known := p.actual.Instances[id]; !known && p.removed[id] < began {
			p.opts.Logger.Warn("a container of ours was found that nobody knows", "instance", id)
			f.State = api.InstanceRestoring
			p.set(Instance{ObservedInstance: f, Exists: true})
		}
	}
	for id, when := range p.removed {
		if when < began {
			delete(p.removed, id)
		}
	}
	for _, digest := range stored {
		if _, known := p.actual.Checkpoints[digest]; !known {
			p.actual.Checkpoints[digest] = Checkpoint{}
		}
	}
}

// adopt takes over what an earlier process of this agent left.
func (p *Pool) adopt(exists map[api.InstanceID]api.ObservedInstance) {
	for id, record := range p.records {
		i := Instance{ObservedInstance: record}
		f, ok := exists[id]
		switch {
		case !ok:
			i.State, i.Reason = api.InstanceFailed, "its container was gone when the agent started"
		case f.State == api.InstanceFailed:
			i.State, i.Reason, i.Exists = api.InstanceFailed, f.Reason, true
		default:
			i.Exists, i.Port = true, f.Port
		}
		p.set(i)
		p.opts.Logger.Info("instance adopted", "instance", id, "state", i.State, "reason", i.Reason)
	}
	for id, f := range exists {
		if _, ok := p.records[id]; !ok {
			f.State = api.InstanceRestoring // half started: no record says that it was rekeyed
			p.set(Instance{ObservedInstance: f, Exists: true})
			p.opts.Logger.Warn("a half started instance was found", "instance", id)
		}
	}
	for _, want := range p.desired.Instances {
		if i, ok := p.actual.Instances[want.ID]; ok && !p.desired.Heard.IsZero() {
			i.Named = true
			p.actual.Instances[want.ID] = i
		}
	}
	p.records = nil
}

// died notes that the container of a settled instance does not run any more.
func (p *Pool) died(i Instance, f api.ObservedInstance, exists bool) {
	i.Exists = exists
	if i.State != api.InstanceFailed {
		i.State, i.Reason = api.InstanceFailed, "its container is gone"
		if exists {
			i.Reason = f.Reason
		}
		p.opts.Recorder.Failure("run")
		p.opts.Logger.Warn("instance died", "instance", i.ID, "reason", i.Reason)
	}
	p.set(i)
}

// set stores a record and marks it as newer than any list under way.
func (p *Pool) set(i Instance) {
	i.changed = p.lists
	p.actual.Instances[i.ID] = i
}
