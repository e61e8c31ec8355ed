package scheduler

import (
	"context"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// groupPeriod is how often the members of the Raft group are compared with
	// gossip, besides whenever gossip changes.
	groupPeriod = time.Second
	// addTimeout bounds adding one member: the newcomer need not answer for it.
	addTimeout = 5 * time.Second
)

// meta is what this scheduler says of itself in gossip.
func (p *process) meta() api.MemberMeta {
	return api.MemberMeta{
		Role: api.RoleScheduler, HTTP: p.o.HTTP.Advertise, Raft: p.o.Raft.Advertise,
		Joined: p.consensus != nil && p.consensus.HasState(),
	}
}

// keepGroup founds the Raft group, or lets the leader add those who join
// later, until ctx ends.
func (p *process) keepGroup(ctx context.Context) error {
	select {
	case <-p.consensus.Started():
	case <-ctx.Done():
		return nil
	}
	changed, stop := p.gossip.Subscribe()
	defer stop()
	tick := time.NewTicker(groupPeriod)
	defer tick.Stop()
	for {
		p.tendGroup(ctx)
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *process) tendGroup(ctx context.Context) {
	if !p.consensus.HasState() {
		servers, ok := founders(p.gossip.Members(), p.o.Raft.BootstrapExpect)
		if !ok {
			return
		}
		if err := p.consensus.Bootstrap(servers); err != nil {
			p.logger.Warn("the raft group could not be founded; trying again", "err", err)
			return
		}
		p.logger.Info("founded a raft group", "members", len(servers))
	}
	// Everybody must know that a group exists, or a newcomer might found another.
	if err := p.gossip.SetMeta(p.meta()); err != nil {
		p.logger.Warn("gossip could not be told that this scheduler has joined", "err", err)
	}
	if self, _ := p.consensus.Leader(); !self {
		return
	}
	for _, s := range newcomers(p.gossip.Members(), p.consensus.Servers()) {
		bounded, cancel := context.WithTimeout(ctx, addTimeout)
		err := p.consensus.AddVoter(bounded, s)
		cancel()
		if err != nil {
			p.logger.Warn("a scheduler could not be added; trying again", "newcomer", s.ID, "address", s.Address, "err", err)
			continue
		}
		p.logger.Info("scheduler added to the raft group", "newcomer", s.ID, "address", s.Address)
	}
}
