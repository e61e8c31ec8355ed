package lease

import (
	"context"
	"strings"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// demoIn returns a lease of v as its visitor sees it.
func (s *Service) demoIn(v *state.View, l *state.Lease) api.Demo {
	i, _ := v.Instance(l.Instance)
	return s.toDemo(v, l, i)
}

// toDemo does so for a lease and its instance, which is nil once it is gone.
func (s *Service) toDemo(v *state.View, l *state.Lease, i *state.Instance) api.Demo {
	d := api.Demo{
		ID: l.ID, State: l.State, Template: l.Template.Name, URL: s.url(l.Host),
		CreatedAt: l.CreatedAt, ExpiresAt: l.ExpiresAt, ExtendableUntil: l.LatestExpiry,
		Epoch: l.Epoch, Revision: l.Revision,
	}
	if t, ok := v.Template(l.Template.Name); ok && t.Spec.AdminPath != "" {
		d.AdminURL = strings.TrimSuffix(d.URL, "/") + t.Spec.AdminPath
	}
	if !l.State.Ended() && i != nil && i.Lease == l.ID && i.Credentials != nil {
		c := *i.Credentials // a copy: views must not be changed
		d.Credentials = &c
	}
	return d
}

// withoutCredentials returns what may be kept outside the replicated state.
func withoutCredentials(d api.Demo) api.Demo {
	d.Credentials = nil
	return d
}

// Inspect returns a demo as this server knows it: from its own replica and,
// where that is newer, from the session record. stale says that no leader is
// known, so it may be out of date for long. A follower that does not know the
// lease leaves the answer to the leader.
func (s *Service) Inspect(ctx context.Context, id api.LeaseID) (demo api.Demo, stale bool, err error) {
	self, leader := s.log.Leader()
	stale = leader == ""
	v := s.log.View()
	l, ok := v.Lease(id)
	if !ok && self {
		if v, l, err = s.certain(ctx, id); err != nil {
			return api.Demo{}, stale, err
		}
		ok = true
	}
	record, recorded, err := s.records.Get(ctx, id)
	recorded = recorded && err == nil // a store that fails is no reason to: its adapter says so
	switch {
	case ok && recorded:
		return newer(s.demoIn(v, l), record), stale, nil
	case ok:
		return s.demoIn(v, l), stale, nil
	case recorded && stale: // nobody to ask
		return withoutCredentials(record), stale, nil
	default:
		return api.Demo{}, stale, notLeader()
	}
}

// newer returns d as the record says it is by now, if that is newer.
// Credentials stay only while the demo is on the same instance.
func newer(d, record api.Demo) api.Demo {
	if record.Revision <= d.Revision {
		return d
	}
	if record.Epoch != d.Epoch || record.State.Ended() {
		d.Credentials = nil
	}
	d.State, d.ExpiresAt, d.ExtendableUntil = record.State, record.ExpiresAt, record.ExtendableUntil
	d.Epoch, d.Revision = record.Epoch, record.Revision
	return d
}

// certain looks for a lease that this replica did not know a moment ago, once
// it is sure to lead and to hold everything.
func (s *Service) certain(ctx context.Context, id api.LeaseID) (*state.View, *state.Lease, error) {
	if err := s.log.VerifyLeader(ctx); err != nil {
		return nil, nil, err
	}
	v := s.log.View()
	l, ok := v.Lease(id)
	if !ok {
		return nil, nil, noDemo()
	}
	return v, l, nil
}

// Record writes the session record of a lease that a leader's loop changed.
func (s *Service) Record(id api.LeaseID) {
	v := s.log.View()
	if l, ok := v.Lease(id); ok {
		s.records.Put(context.Background(), withoutCredentials(s.demoIn(v, l)))
	}
}

// PoolStats counts the instances of every template in this replica.
func (s *Service) PoolStats() api.PoolStats {
	v := s.log.View()
	_, leader := s.log.Leader()
	stats := api.PoolStats{Templates: []api.TemplateStats{}, AsOf: v.Time(), Stale: leader == ""}
	for t := range v.Templates() {
		c := v.TemplateCounts(t.Spec.Name)
		stats.Templates = append(stats.Templates, api.TemplateStats{
			Template: t.Spec.Name, Revision: t.Revision, WarmTarget: t.Spec.Pool.Warm,
			Pending: c.Pending, Warm: c.Warm, Leased: c.Leased, Ending: c.Ending, Failed: c.Failed,
		})
	}
	return stats
}
