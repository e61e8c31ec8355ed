package state

import (
	"fmt"
	"slices"
)

// kindInfo is what the log needs to know about one kind of command.
type kindInfo struct {
	kind    Kind
	name    string // for logs, errors and files; never stored
	version uint16 // of the payload that this binary writes
	since   uint32 // cluster version from which on it may be proposed
	decode  func(payload []byte) (Command, error)
}

// kinds lists every command, in order of their numbers. Rows are only ever
// added: a log or a backup may hold any of them.
var kinds = []kindInfo{
	{KindPutTemplate, "put_template", 1, 0, decode[PutTemplate]},
	{KindPutNode, "put_node", 1, 0, decode[PutNode]},
	{KindSetNodeStatus, "set_node_status", 1, 0, decode[SetNodeStatus]},
	{KindStartBuild, "start_build", 1, 0, decode[StartBuild]},
	{KindFinishBuild, "finish_build", 1, 0, decode[FinishBuild]},
	{KindCreateInstance, "create_instance", 1, 0, decode[CreateInstance]},
	{KindWarmInstance, "warm_instance", 1, 0, decode[WarmInstance]},
	{KindFailInstance, "fail_instance", 1, 0, decode[FailInstance]},
	{KindEndInstance, "end_instance", 1, 0, decode[EndInstance]},
	{KindRemoveInstance, "remove_instance", 1, 0, decode[RemoveInstance]},
	{KindClaimLease, "claim_lease", 1, 0, decode[ClaimLease]},
	{KindRenewLease, "renew_lease", 1, 0, decode[RenewLease]},
	{KindReleaseLease, "release_lease", 1, 0, decode[ReleaseLease]},
	{KindExpireLeases, "expire_leases", 1, 0, decode[ExpireLeases]},
	{KindRebindLease, "rebind_lease", 1, 0, decode[RebindLease]},
	{KindGrantGrace, "grant_grace", 1, 0, decode[GrantGrace]},
	{KindCollect, "collect", 1, 0, decode[Collect]},
	{KindSetClusterVersion, "set_cluster_version", 1, 0, decode[SetClusterVersion]},
	{KindLoseLease, "lose_lease", 1, 0, decode[LoseLease]},
	{KindRemoveCheckpoint, "remove_checkpoint", 1, 0, decode[RemoveCheckpoint]},
}

func (k Kind) info() (kindInfo, bool) {
	i, ok := slices.BinarySearchFunc(kinds, k, func(i kindInfo, k Kind) int { return int(i.kind) - int(k) })
	if !ok {
		return kindInfo{}, false
	}
	return kinds[i], true
}

// String returns the name of the command, for logs and metrics.
func (k Kind) String() string {
	if i, ok := k.info(); ok {
		return i.name
	}
	return fmt.Sprintf("kind_%d", uint16(k))
}

// Permits reports whether every voter understands commands of kind k, as far
// as the cluster version tells.
func (v *View) Permits(k Kind) bool {
	i, ok := k.info()
	return ok && i.since <= v.clusterVersion
}
