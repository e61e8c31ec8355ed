package lease

import (
	"context"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// maxWait is the longest that a caller stands in line: load balancers close
	// a silent request after about a minute.
	maxWait = 60 * time.Second
	// maxAttempts bounds how often a call turns to another instance, because
	// the one it had picked changed first. That takes a leader's loop that ends
	// or moves this very instance in the same milliseconds.
	maxAttempts = 8
)

// Acquire leases a warm instance. replayed says that the idempotency key was
// known and demo is the one of the first call. Errors: [api.CodeInvalid],
// [api.CodeNotFound] (no such template, or the demo of the key has ended),
// [api.CodeConflict] (the key was used for another request),
// [api.CodeExhausted], and those of [Log].
func (s *Service) Acquire(ctx context.Context, call api.AcquireCall) (demo api.Demo, replayed bool, err error) {
	demo, replayed, err = s.acquire(ctx, call)
	s.metrics.acquired(replayed, err)
	return demo, replayed, err
}

func (s *Service) acquire(ctx context.Context, call api.AcquireCall) (api.Demo, bool, error) {
	if !s.leads() {
		return api.Demo{}, false, notLeader()
	}
	o, err := s.understand(ctx, call)
	if err != nil {
		return api.Demo{}, false, err
	}
	if r := s.replay(ctx, o); r.known {
		return r.demo, r.err == nil, r.err
	}
	for attempt := range maxAttempts {
		i, err := s.obtain(ctx, o, attempt > 0)
		if r := s.settle(ctx, o, i, err); r.known {
			return r.demo, r.replayed, r.err
		}
	}
	return api.Demo{}, false, unavailable("the pool changes faster than it can be leased from; ask again")
}

// reply is the answer to an acquire, once it is known.
type reply struct {
	known    bool
	demo     api.Demo
	replayed bool
	err      error
}

func failed(err error) reply { return reply{known: true, err: err} }

// replay answers a call whose idempotency key is known. That needs no instance
// and no log entry, but a leader that is one for certain: a deposed one would
// show the demo as it once was.
func (s *Service) replay(ctx context.Context, o order) reply {
	if o.key == "" {
		return reply{}
	}
	if _, ok := claimOf(s.log.View(), o.key); !ok {
		return reply{}
	}
	if err := s.log.VerifyLeader(ctx); err != nil {
		return failed(err)
	}
	v := s.log.View()
	c, ok := claimOf(v, o.key)
	if !ok {
		return reply{}
	}
	if c.Fingerprint != o.fingerprint {
		return failed(api.Errorf(api.CodeConflict, "this Idempotency-Key was used for another request; use a new one"))
	}
	l, ok := v.Lease(c.Lease)
	if !ok {
		return failed(api.Errorf(api.CodeNotFound, "the demo of this Idempotency-Key has ended; use a new key for a new demo"))
	}
	return reply{known: true, demo: s.demoIn(v, l), replayed: true}
}

// claimOf returns the claim of a key unless it is over, as the state sees it.
func claimOf(v *state.View, key string) (*state.Claim, bool) {
	c, ok := v.Claim(key)
	if !ok || !c.ExpiresAt.After(stateTime(v)) {
		return nil, false
	}
	return c, true
}

// obtain claims an instance for this call, waiting in line if it would. The
// caller must give it back. again says that an earlier one was lost, so that
// its turn had come already.
func (s *Service) obtain(ctx context.Context, o order, again bool) (*state.Instance, error) {
	left := time.Until(o.deadline)
	start := time.Now()
	t := s.stock.take(want{name: o.name(), first: again, wait: left > 0})
	s.metrics.stage(stagePick, start)
	switch {
	case t.instance != nil:
		return t.instance, nil
	case t.waiter == nil:
		return nil, s.exhausted(o.name(), t.ahead)
	}
	defer func() { s.metrics.waited(time.Since(start)) }()
	return s.await(ctx, t.waiter, left)
}

// await stands in line.
func (s *Service) await(ctx context.Context, w *waiter, left time.Duration) (*state.Instance, error) {
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-w.ready:
		return w.instance, w.err
	case <-timer.C:
		t := s.stock.leave(w)
		switch {
		case t.instance != nil: // given in the same moment: the wait was worth it
			return t.instance, nil
		case w.err != nil:
			return nil, w.err
		}
		return nil, s.exhausted(w.name, t.ahead)
	case <-ctx.Done():
		if t := s.stock.leave(w); t.instance != nil {
			s.stock.giveBack(w.name, t.instance.ID) // the next in line gets it
		}
		return nil, givenUp(ctx)
	}
}

func (s *Service) exhausted(name api.TemplateName, ahead int) error {
	e := api.Errorf(api.CodeExhausted, "all demos of %s are in use; more are being started", name)
	e.RetryAfter = s.refill.retryAfter(name, ahead+1)
	return e
}

// settle turns an instance into a lease, or the lack of one into an answer,
// unless another call has done so under the same key meanwhile. The reply is
// not known where the instance was lost and another may do.
func (s *Service) settle(ctx context.Context, o order, i *state.Instance, missing error) reply {
	if i != nil {
		defer s.stock.giveBack(o.name(), i.ID)
	}
	for {
		release, held := s.keys.hold(o.key)
		if held == nil {
			defer release()
			break
		}
		select {
		case <-held: // its claim is applied here, if it made one
		case <-ctx.Done():
			return failed(givenUp(ctx))
		}
		if r := s.replay(ctx, o); r.known {
			return r
		}
	}
	if r := s.replay(ctx, o); r.known {
		return r
	}
	if missing != nil {
		return failed(missing)
	}
	return s.claim(ctx, o, i)
}

// claim proposes the lease. After an error it is never tried with another
// instance: the first claim may still come true, and the visitor would have
// two.
func (s *Service) claim(ctx context.Context, o order, i *state.Instance) reply {
	start := time.Now()
	result, err := s.log.Propose(ctx, state.ClaimLease{
		Lease: api.NewLeaseID(), Instance: i.ID, InstanceRevision: i.Revision,
		TTL: o.ttl, MaxTTL: o.maxTTL, IdempotencyKey: o.key, Fingerprint: o.fingerprint,
	})
	s.metrics.stage(stagePropose, start)
	if err != nil {
		return failed(err)
	}
	switch api.CodeOf(result.Err()) {
	case "":
	case api.CodeConflict, api.CodeNotFound:
		s.logger.Debug("a claim was refused", "instance", i.ID, "err", result.Err())
		return s.replay(ctx, o) // known if the key was the reason, else it was the instance
	default:
		return failed(result.Err())
	}
	d := s.toDemo(s.log.View(), result.Lease, result.Instance)
	s.records.Put(ctx, withoutCredentials(d))
	return reply{known: true, demo: d, replayed: result.Replayed}
}
