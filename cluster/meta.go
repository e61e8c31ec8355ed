package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"github.com/boss/demo-multiplexer/api"
)

// encodeMeta returns m as it travels. The library panics where that is too
// long, so it is checked here.
func encodeMeta(m api.MemberMeta) ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode what a member says of itself: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("takes %d bytes in gossip, %d at most; shorten the addresses", len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// decodeMeta checks what another member says of itself.
func decodeMeta(b []byte) (api.MemberMeta, error) {
	var m api.MemberMeta
	if len(b) > memberlist.MetaMaxSize {
		return m, fmt.Errorf("it has %d bytes", len(b))
	}
	if err := json.Unmarshal(b, &m); err != nil { // unknown fields pass: a newer version may say more
		return api.MemberMeta{}, err
	}
	if m.Role != api.RoleScheduler && m.Role != api.RoleAgent {
		return api.MemberMeta{}, fmt.Errorf("%q is no role", m.Role)
	}
	for name, address := range map[string]string{"HTTP": m.HTTP, "Raft": m.Raft} {
		if address == "" && name == "Raft" {
			continue
		}
		if a, err := netip.ParseAddrPort(address); err != nil || a.Addr().IsUnspecified() {
			return api.MemberMeta{}, fmt.Errorf("%q is no %s address", address, name)
		}
	}
	return m, nil
}
