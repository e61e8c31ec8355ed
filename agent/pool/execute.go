package pool

import (
	"context"
	"errors"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Each bound keeps one hanging call of the runtime from holding a worker for
// ever. They are far above what the work takes.
const (
	// restoreTimeout is for a whole restore: container, pages, hook, probe.
	restoreTimeout = 2 * time.Minute
	// buildTimeout is for checkpoint, commit, export and hashing, after the
	// template's own time to become healthy.
	buildTimeout = 15 * time.Minute
	// fetchTimeout is for one attempt to fetch and load; what was fetched by
	// then is kept.
	fetchTimeout = 30 * time.Minute
	// removeTimeout is for removing one container or one checkpoint.
	removeTimeout = time.Minute
)

// Backoff after a failed removal, fetch or discard.
const (
	backoffFirst = time.Second
	backoffMost  = time.Minute
)

func backoff(failures int) time.Duration {
	return min(backoffFirst<<min(failures-1, 10), backoffMost)
}

// limit bounds how much of one kind is under way at the same time.
func (p *Pool) limit(k ActionKind) int {
	switch k {
	case Start, Remove:
		return p.opts.Starts
	case Fetch:
		return 2 // one downloads while the other is loaded
	}
	return 1
}

// execute does a, or lets a worker do it, and reports whether a record
// changed. Where too much of its kind is under way it does nothing: the next
// plan asks again.
func (p *Pool) execute(ctx context.Context, a Action, now time.Time) bool {
	switch a.Kind {
	case Cancel:
		i := p.actual.Instances[a.Instance]
		i.Cancelled = true
		p.set(i)
		p.cancels[a.Instance]()
		return false
	case Forget:
		return p.forget(a.Instance)
	case Lease:
		return p.lease(a)
	case Fail:
		p.fail(a)
		return false
	case Drop:
		delete(p.actual.Builds, a.Build.Template)
		p.saveBuilds()
		return false
	}
	if p.running[a.Kind] >= p.limit(a.Kind) {
		return false
	}
	switch a.Kind {
	case Remove:
		p.remove(ctx, a)
	case Discard:
		p.discard(ctx, a)
	case Fetch:
		p.fetch(ctx, a)
	case Make:
		p.build(ctx, a, now)
	case Start:
		return p.start(ctx, a, now)
	}
	return false
}

// work lets a worker do something under a deadline, and the owner apply what
// came of it.
func (p *Pool) work(ctx context.Context, k ActionKind, timeout time.Duration, do func(context.Context) error, apply func(error, time.Time)) context.CancelFunc {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("it took longer than "+timeout.String()))
	p.running[k]++
	p.workers.Go(func() {
		err := do(ctx)
		if err != nil && ctx.Err() != nil {
			err = errors.Join(err, context.Cause(ctx))
		}
		cancel()
		p.results <- func(now time.Time) {
			p.running[k]--
			apply(err, now)
		}
	})
	return cancel
}

func (p *Pool) forget(id api.InstanceID) bool {
	if err := p.journal.dropInstance(id); err != nil {
		p.opts.Logger.Error("cannot drop a record", "instance", id, "err", err)
	}
	delete(p.actual.Instances, id)
	return true
}

func (p *Pool) lease(a Action) bool {
	i := p.actual.Instances[a.Instance]
	i.State, i.Epoch, i.Reason = api.InstanceLeased, a.Epoch, ""
	if err := p.journal.saveInstance(i.ObservedInstance); err != nil {
		// The leader's word is on disk already: after a restart it says so again.
		p.opts.Logger.Error("cannot store a lease", "instance", i.ID, "err", err)
	}
	p.set(i)
	p.opts.Logger.Info("instance leased", "instance", i.ID, "epoch", a.Epoch)
	return true
}

func (p *Pool) fail(a Action) {
	p.set(Instance{
		ObservedInstance: api.ObservedInstance{ID: a.Instance, State: api.InstanceFailed, Reason: a.Reason},
		Named:            true,
	})
	p.opts.Logger.Warn("instance cannot be started here", "instance", a.Instance, "reason", a.Reason)
}

func (p *Pool) remove(ctx context.Context, a Action) {
	i := p.actual.Instances[a.Instance]
	was := i.State
	i.Busy, i.State, i.Reason = true, api.InstanceEnding, a.Reason
	if was == api.InstanceFailed {
		i.State = was // the leader is told of the failure at once and for good
	}
	i.Credentials = nil
	p.set(i)
	p.work(ctx, Remove, removeTimeout, func(ctx context.Context) error {
		return p.opts.Runtime.Remove(ctx, i.ID)
	}, func(err error, now time.Time) {
		i := p.actual.Instances[a.Instance]
		i.Busy, i.State = false, api.InstanceFailed
		if err != nil {
			i.Failures++
			i.RetryAt = now.Add(backoff(i.Failures))
			p.set(i)
			p.opts.Recorder.Failure("remove")
			p.opts.Logger.Warn("cannot remove an instance", "instance", i.ID, "err", err)
			return
		}
		i.Exists, i.Failures, i.Port, i.Stages = false, 0, 0, nil
		p.set(i)
		p.removed[i.ID] = p.lists
		if err := p.journal.dropInstance(i.ID); err != nil {
			p.opts.Logger.Error("cannot drop a record", "instance", i.ID, "err", err)
		}
		p.opts.Logger.Info("instance removed", "instance", i.ID, "was", was, "reason", i.Reason)
	})
}

func (p *Pool) discard(ctx context.Context, a Action) {
	c := p.actual.Checkpoints[a.Digest]
	c.Busy = true
	p.actual.Checkpoints[a.Digest] = c
	p.work(ctx, Discard, removeTimeout, func(ctx context.Context) error {
		return p.opts.Checkpoints.Remove(ctx, a.Digest)
	}, func(err error, now time.Time) {
		if err == nil {
			delete(p.actual.Checkpoints, a.Digest)
			p.opts.Logger.Info("checkpoint removed", "checkpoint", a.Digest)
			return
		}
		c := p.actual.Checkpoints[a.Digest]
		c.Busy, c.Failures = false, c.Failures+1
		c.RetryAt = now.Add(backoff(c.Failures))
		p.actual.Checkpoints[a.Digest] = c
		p.opts.Recorder.Failure("discard")
		p.opts.Logger.Warn("cannot remove a checkpoint", "checkpoint", a.Digest, "err", err)
	})
}

func (p *Pool) fetch(ctx context.Context, a Action) {
	var src api.CheckpointSource
	for _, s := range p.desired.Checkpoints {
		if s.Digest == a.Digest {
			src = s
		}
	}
	c := p.actual.Checkpoints[a.Digest]
	c.Busy, c.Sources, c.State, c.Reason = true, src.Sources, api.CheckpointFetching, ""
	p.actual.Checkpoints[a.Digest] = c
	began := time.Now()
	p.work(ctx, Fetch, fetchTimeout, func(ctx context.Context) error {
		return p.opts.Checkpoints.Ensure(ctx, src)
	}, func(err error, now time.Time) {
		c := p.actual.Checkpoints[a.Digest]
		c.Busy = false
		if err != nil {
			c.State, c.Reason, c.Failures = api.CheckpointFailed, reason(err), c.Failures+1
			c.RetryAt = now.Add(backoff(c.Failures))
			p.opts.Recorder.Failure("fetch")
			p.opts.Logger.Warn("cannot get a checkpoint", "checkpoint", a.Digest, "err", err)
		} else {
			c.State, c.Reason, c.Failures = api.CheckpointReady, "", 0
			p.opts.Recorder.Stage("fetch", now.Sub(began))
			p.opts.Logger.Info("checkpoint ready", "checkpoint", a.Digest, "took", now.Sub(began))
		}
		p.actual.Checkpoints[a.Digest] = c
	})
}
