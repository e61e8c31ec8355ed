package lease

import (
	"context"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// Extend gives a demo the asked time from now on, or the template's default,
// as far as its latest end allows. It never shortens a demo, so a repeated call
// does no harm. Errors: [api.CodeInvalid], [api.CodeNotFound],
// [api.CodeConflict] (the demo has ended), and those of [Log].
func (s *Service) Extend(ctx context.Context, id api.LeaseID, r api.ExtendRequest) (api.Demo, error) {
	return s.change(ctx, id, func(v *state.View, l *state.Lease) (state.Command, error) {
		if l.State.Ended() {
			return nil, api.Errorf(api.CodeConflict, "the demo has ended: it is %s; acquire a new one with POST /api/v1/demo/acquire", l.State)
		}
		t, ok := v.Template(l.Template.Name)
		if !ok {
			return nil, api.Errorf(api.CodeInternal, "the template of a lease is gone")
		}
		ttl, err := ttlWithin(t, r.TTL)
		if err != nil {
			return nil, err
		}
		now := stateTime(v)
		end := now.Add(ttl.D())
		if end.After(l.LatestExpiry) {
			end = l.LatestExpiry
		}
		if !end.After(now) {
			return nil, api.Errorf(api.CodeConflict, "the demo has reached its latest end and cannot be extended")
		}
		if !end.After(l.ExpiresAt) {
			return nil, nil // it has this much time already
		}
		return state.RenewLease{Lease: l.ID, Revision: l.Revision, ExpiresAt: end}, nil
	})
}

// Release ends a demo. One that has ended already is returned as it is.
// Errors: [api.CodeNotFound], and those of [Log].
func (s *Service) Release(ctx context.Context, id api.LeaseID) (api.Demo, error) {
	return s.change(ctx, id, func(_ *state.View, l *state.Lease) (state.Command, error) {
		if l.State.Ended() {
			return nil, nil
		}
		return state.ReleaseLease{Lease: l.ID, Revision: l.Revision}, nil
	})
}

// change proposes what plan makes of a lease, again while the lease changes
// underneath. A plan without a command leaves the lease as it is.
func (s *Service) change(ctx context.Context, id api.LeaseID, plan func(*state.View, *state.Lease) (state.Command, error)) (api.Demo, error) {
	if !s.leads() {
		return api.Demo{}, notLeader()
	}
	for range maxAttempts {
		v := s.log.View()
		l, ok := v.Lease(id)
		if !ok {
			var err error
			if v, l, err = s.certain(ctx, id); err != nil {
				return api.Demo{}, err
			}
		}
		cmd, err := plan(v, l)
		if err != nil {
			return api.Demo{}, err
		}
		if cmd == nil {
			return s.unchanged(ctx, id)
		}
		result, err := s.log.Propose(ctx, cmd)
		if err != nil {
			return api.Demo{}, err
		}
		switch api.CodeOf(result.Err()) {
		case "":
			d := s.demoIn(s.log.View(), result.Lease)
			s.records.Put(ctx, withoutCredentials(d))
			return d, nil
		case api.CodeConflict, api.CodeNotFound: // the view holds why by now
		default:
			return api.Demo{}, result.Err()
		}
	}
	return api.Demo{}, unavailable("the demo changes faster than the request can be done; ask again")
}

// unchanged answers a call that has nothing to do. A deposed leader could be
// wrong about that.
func (s *Service) unchanged(ctx context.Context, id api.LeaseID) (api.Demo, error) {
	v, l, err := s.certain(ctx, id)
	if err != nil {
		return api.Demo{}, err
	}
	return s.demoIn(v, l), nil
}
