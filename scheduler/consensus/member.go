package consensus

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/api"
)

// Server is a member of the Raft group.
type Server struct {
	ID      api.ServerID
	Address string // address and port of Raft
	Voter   bool   // as reported; whoever is bootstrapped or added becomes a voter
}

// Bootstrap founds a group of voters. Every founder may do so with the same
// list. It does nothing where this server belongs to a group already.
func (n *Node) Bootstrap(servers []Server) error {
	r, leave, err := n.enter()
	if err != nil {
		return err
	}
	defer leave()
	var c raft.Configuration
	for _, s := range servers {
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address),
		})
	}
	if err := r.BootstrapCluster(c).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap the raft group: %w", err)
	}
	return nil
}

// Address returns the address at which the other servers reach this one, empty
// before the start.
func (n *Node) Address() string {
	if _, ok := n.running(); !ok {
		return ""
	}
	return string(n.relay.LocalAddr())
}

// Servers returns the members of the group as this server knows them, none
// before it belongs to one.
func (n *Node) Servers() []Server {
	r, ok := n.running()
	if !ok {
		return nil
	}
	var servers []Server
	for _, s := range r.GetConfiguration().Configuration().Servers {
		servers = append(servers, Server{ID: api.ServerID(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers
}

// AddVoter adds a server to the group, or changes its address. Only the leader
// can. Errors are those of Propose.
func (n *Node) AddVoter(ctx context.Context, s Server) error {
	return n.changeGroup(ctx, func(r *raft.Raft) raft.Future {
		return r.AddVoter(raft.ServerID(s.ID), raft.ServerAddress(s.Address), 0, enqueueTimeout)
	})
}

// RemoveServer removes a server from the group. Only the leader can, and it
// steps down where it removes itself. Errors are those of Propose.
func (n *Node) RemoveServer(ctx context.Context, id api.ServerID) error {
	return n.changeGroup(ctx, func(r *raft.Raft) raft.Future {
		return r.RemoveServer(raft.ServerID(id), 0, enqueueTimeout)
	})
}

func (n *Node) changeGroup(ctx context.Context, request func(*raft.Raft) raft.Future) error {
	if err := n.await(ctx, request); err != nil {
		return classify(err)
	}
	return nil
}

// TransferLeadership makes another server lead. Errors: [api.CodeNotLeader],
// [api.CodeUnavailable] where no other server could take over.
func (n *Node) TransferLeadership(ctx context.Context) error {
	return harmless(n.await(ctx, func(r *raft.Raft) raft.Future { return r.LeadershipTransfer() }))
}
