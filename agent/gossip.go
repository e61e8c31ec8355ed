package agent

import (
	"context"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/cluster"
)

// joinGossip says that this node is there, once it can be of use.
func (p *process) joinGossip(ctx context.Context) error {
	select {
	case <-p.gate.opened:
	case <-ctx.Done():
		return nil
	}
	b, _ := p.gate.enter()
	g, err := cluster.New(cluster.Options{
		Name: string(p.o.ID), Listen: p.o.Gossip.Listen, Advertise: p.o.Gossip.Advertise, Join: p.o.Gossip.Join, Key: p.gossipKey,
		Meta:   api.MemberMeta{Role: api.RoleAgent, HTTP: p.o.HTTP.Advertise, HostClass: b.node.HostClass},
		Logger: p.logger, Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	return g.Run(ctx)
}
