package scheduler

import (
	"cmp"
	"slices"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/cluster"
	"github.com/boss/demo-multiplexer/scheduler/consensus"
)

// founders decides whether the schedulers that gossip sees found a new Raft
// group now, and with whom. They do when exactly as many as expected are
// there and none of them belongs to a group already: every founder then
// bootstraps with the same sorted list, which Raft allows.
func founders(members []cluster.Member, expect int) ([]consensus.Server, bool) {
	var servers []consensus.Server
	for _, m := range schedulersOf(members) {
		if m.Meta.Joined {
			return nil, false
		}
		if m.Alive {
			servers = append(servers, consensus.Server{ID: api.ServerID(m.Name), Address: m.Meta.Raft})
		}
	}
	return servers, len(servers) == expect
}

// newcomers returns the live schedulers that gossip sees and the Raft group
// does not have, or has under another address.
func newcomers(members []cluster.Member, group []consensus.Server) []consensus.Server {
	var servers []consensus.Server
	for _, m := range schedulersOf(members) {
		s := consensus.Server{ID: api.ServerID(m.Name), Address: m.Meta.Raft}
		known := slices.ContainsFunc(group, func(g consensus.Server) bool { return g.ID == s.ID && g.Address == s.Address })
		if m.Alive && !known {
			servers = append(servers, s)
		}
	}
	return servers
}

func schedulersOf(members []cluster.Member) []cluster.Member {
	var found []cluster.Member
	for _, m := range members {
		if m.Meta.Role == api.RoleScheduler && m.Meta.Raft != "" {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b cluster.Member) int { return cmp.Compare(a.Name, b.Name) })
	return found
}
