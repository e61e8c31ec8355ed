package pool

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// memoryStep and diskStep round the hints, so that they do not look newer
	// than they are.
	memoryStep = api.Bytes(64 << 20)
	diskStep   = api.Bytes(1 << 30)
)

// Observed returns what was last observed. Its boot is empty until the pool
// has looked for the first time.
func (p *Pool) Observed() api.Observed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.snapshot
}

// Observe waits until there is something newer than revision after of process
// boot, or until ctx ends, and returns what was last observed. The error has
// code unavailable where nothing was observed yet.
func (p *Pool) Observe(ctx context.Context, boot string, after uint64) (api.Observed, error) {
	for {
		p.mu.Lock()
		snapshot, changed := p.snapshot, p.changed
		p.mu.Unlock()
		if snapshot.Boot != "" && (boot != snapshot.Boot || snapshot.Revision > after) {
			return snapshot, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if snapshot.Boot == "" {
				return api.Observed{}, errNotListed
			}
			return snapshot, nil
		}
	}
}

// publish makes the state visible if it changed, and returns what is visible.
func (p *Pool) publish() api.Observed {
	if !p.listed {
		return api.Observed{}
	}
	next := p.observe()
	p.mu.Lock()
	defer p.mu.Unlock()
	next.Revision = p.snapshot.Revision
	// The hints change all the time: they travel with the next real change.
	next.Node.MemoryAvailable, next.Node.DiskAvailable = p.snapshot.Node.MemoryAvailable, p.snapshot.Node.DiskAvailable
	if reflect.DeepEqual(next, p.snapshot) {
		return p.snapshot
	}
	memory, disk := p.opts.Host.Available()
	next.Node.MemoryAvailable, next.Node.DiskAvailable = memory-memory%memoryStep, disk-disk%diskStep
	next.Revision++
	p.snapshot = next
	close(p.changed)
	p.changed = make(chan struct{})
	return next
}

// observe renders the state, sorted.
func (p *Pool) observe() api.Observed {
	o := api.Observed{Node: p.opts.Node, Boot: p.boot, Term: p.desired.Term, Generation: p.desired.Generation}
	for _, id := range slices.Sorted(maps.Keys(p.actual.Instances)) {
		o.Instances = append(o.Instances, p.actual.Instances[id].ObservedInstance)
	}
	for _, digest := range slices.Sorted(maps.Keys(p.actual.Checkpoints)) {
		if c := p.actual.Checkpoints[digest]; c.State != "" {
			o.Checkpoints = append(o.Checkpoints, api.ObservedCheckpoint{Digest: digest, State: c.State, Reason: c.Reason})
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(p.actual.Builds), compareRefs) {
		o.Builds = append(o.Builds, p.actual.Builds[ref].ObservedBuild)
	}
	return o
}
