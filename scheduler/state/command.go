package state

import (
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Kind is the permanent number of a command. Numbers are appended, never
// reused.
type Kind uint16

// The commands.
const (
	KindPutTemplate       Kind = 1
	KindPutNode           Kind = 2
	KindSetNodeStatus     Kind = 3
	KindStartBuild        Kind = 4
	KindFinishBuild       Kind = 5
	KindCreateInstance    Kind = 6
	KindWarmInstance      Kind = 7
	KindFailInstance      Kind = 8
	KindEndInstance       Kind = 9
	KindRemoveInstance    Kind = 10
	KindClaimLease        Kind = 11
	KindRenewLease        Kind = 12
	KindReleaseLease      Kind = 13
	KindExpireLeases      Kind = 14
	KindRebindLease       Kind = 15
	KindGrantGrace        Kind = 16
	KindCollect           Kind = 17
	KindSetClusterVersion Kind = 18
	KindLoseLease         Kind = 19
	KindRemoveCheckpoint  Kind = 20
)

// Command is one change of the state. Its proposer has chosen every ID, time
// and instance in it; [Apply] only checks them.
type Command interface {
	Kind() Kind
	apply(tx *tx) Result
}

// PutTemplate makes Spec the current revision of its template. An equal spec
// changes nothing.
type PutTemplate struct {
	Spec api.Template `json:"spec"`
}

// PutNode records what is known of a node and that it is up. ChangedAt is
// ignored.
type PutNode struct {
	Node Node `json:"node"`
}

// SetNodeStatus records that a node is up or down.
type SetNodeStatus struct {
	Node   api.NodeID    `json:"node"`
	Status api.NodeState `json:"status"`
	Reason string        `json:"reason,omitempty"`
}

// StartBuild records the intent to build a checkpoint on a node. It replaces
// a failed build, or one whose builder is down, when Attempt is one higher.
type StartBuild struct {
	Key     CheckpointKey `json:"key"`
	Builder api.NodeID    `json:"builder"`
	Attempt uint64        `json:"attempt"`
}

// FinishBuild records how a build went: well if Digest is set.
type FinishBuild struct {
	Key     CheckpointKey `json:"key"`
	Attempt uint64        `json:"attempt"`
	Digest  api.Digest    `json:"digest,omitempty"`
	Size    api.Bytes     `json:"size,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Stages  []api.Stage   `json:"stages,omitempty"`
}

// RemoveCheckpoint forgets a checkpoint whose template revision is no longer
// current and that no instance uses.
type RemoveCheckpoint struct {
	Key CheckpointKey `json:"key"`
}

// CreateInstance records the intent to start an instance on a node. Refused
// if the node is down or the template revision is not current.
type CreateInstance struct {
	ID         api.InstanceID  `json:"id"`
	Template   api.TemplateRef `json:"template"`
	Node       api.NodeID      `json:"node"`
	Checkpoint api.Digest      `json:"checkpoint,omitempty"`
	Host       string          `json:"host"`
}

// WarmInstance records that a pending instance serves.
type WarmInstance struct {
	ID          api.InstanceID   `json:"id"`
	Address     string           `json:"address"`
	Credentials *api.Credentials `json:"credentials,omitempty"`
	Stages      []api.Stage      `json:"stages,omitempty"`
}

// FailInstance records that an instance could not be started, or died. The
// lease of a leased one stays active, without a serving instance, until it is
// rebound, lost or over.
type FailInstance struct {
	ID       api.InstanceID `json:"id"`
	Revision uint64         `json:"revision"` // of the instance, as the proposer saw it
	Reason   string         `json:"reason"`
}

// EndInstance begins the removal of an instance that is not leased.
type EndInstance struct {
	ID       api.InstanceID `json:"id"`
	Revision uint64         `json:"revision"`
	Reason   string         `json:"reason"`
}

// RemoveInstance forgets an ending or failed instance that its node no longer
// has.
type RemoveInstance struct {
	ID api.InstanceID `json:"id"`
}

// ClaimLease gives a warm instance to a visitor. Refused with
// [api.CodeConflict] if the instance has changed since the proposer saw it. A
// known idempotency key gives the lease of the first claim again, or
// [api.CodeConflict] where its fingerprint differs.
type ClaimLease struct {
	Lease            api.LeaseID    `json:"lease"`
	Instance         api.InstanceID `json:"instance"`
	InstanceRevision uint64         `json:"instance_revision"`
	TTL              api.Duration   `json:"ttl"`
	MaxTTL           api.Duration   `json:"max_ttl"`
	IdempotencyKey   string         `json:"idempotency_key,omitempty"`
	Fingerprint      string         `json:"fingerprint,omitempty"`
}

// RenewLease moves the end of an active lease, never beyond its latest
// expiry and never to the past. Refused if the lease has changed since.
type RenewLease struct {
	Lease     api.LeaseID `json:"lease"`
	Revision  uint64      `json:"revision"`
	ExpiresAt time.Time   `json:"expires_at"`
}

// ReleaseLease ends an active lease at its visitor's wish. Its instance
// begins to end.
type ReleaseLease struct {
	Lease    api.LeaseID `json:"lease"`
	Revision uint64      `json:"revision"`
}

// LeaseRevision names a lease as its proposer saw it.
type LeaseRevision struct {
	Lease    api.LeaseID `json:"lease"`
	Revision uint64      `json:"revision"`
}

// ExpireLeases ends those of the named leases that have not changed since and
// whose time is over in state time.
type ExpireLeases struct {
	Leases []LeaseRevision `json:"leases"`
}

// RebindLease moves an active lease to another warm instance of its template
// and raises its epoch. The old instance, if it still exists, begins to end.
type RebindLease struct {
	Lease            api.LeaseID    `json:"lease"`
	Revision         uint64         `json:"revision"`
	Instance         api.InstanceID `json:"instance"`
	InstanceRevision uint64         `json:"instance_revision"`
}

// LoseLease ends an active lease whose instance is gone and was not replaced.
type LoseLease struct {
	Lease    api.LeaseID `json:"lease"`
	Revision uint64      `json:"revision"`
}

// GrantGrace gives every active lease at least Grace from now on, because its
// visitor could not extend it while nobody led.
type GrantGrace struct {
	Grace api.Duration `json:"grace"`
}

// Collect forgets leases that ended before EndedBefore and idempotency keys
// that are over, at most Limit of each.
type Collect struct {
	EndedBefore time.Time `json:"ended_before"`
	Limit       int       `json:"limit"`
}

// SetClusterVersion raises the command set that proposers may use.
type SetClusterVersion struct {
	Version uint32 `json:"version"`
}

// Kind returns the permanent number of the command.
func (PutTemplate) Kind() Kind       { return KindPutTemplate }
func (PutNode) Kind() Kind           { return KindPutNode }
func (SetNodeStatus) Kind() Kind     { return KindSetNodeStatus }
func (StartBuild) Kind() Kind        { return KindStartBuild }
func (FinishBuild) Kind() Kind       { return KindFinishBuild }
func (RemoveCheckpoint) Kind() Kind  { return KindRemoveCheckpoint }
func (CreateInstance) Kind() Kind    { return KindCreateInstance }
func (WarmInstance) Kind() Kind      { return KindWarmInstance }
func (FailInstance) Kind() Kind      { return KindFailInstance }
func (EndInstance) Kind() Kind       { return KindEndInstance }
func (RemoveInstance) Kind() Kind    { return KindRemoveInstance }
func (ClaimLease) Kind() Kind        { return KindClaimLease }
func (RenewLease) Kind() Kind        { return KindRenewLease }
func (ReleaseLease) Kind() Kind      { return KindReleaseLease }
func (ExpireLeases) Kind() Kind      { return KindExpireLeases }
func (RebindLease) Kind() Kind       { return KindRebindLease }
func (LoseLease) Kind() Kind         { return KindLoseLease }
func (GrantGrace) Kind() Kind        { return KindGrantGrace }
func (Collect) Kind() Kind           { return KindCollect }
func (SetClusterVersion) Kind() Kind { return KindSetClusterVersion }

// Result is the outcome of a command. A refusal is part of history: every
// replica comes to the same one.
type Result struct {
	Refusal  *api.Error // nil: applied
	Lease    *Lease     // of claims, renewals, releases and moves
	Instance *Instance  // of claims, moves and changes of an instance
	Template *Template  // of PutTemplate
	Replayed bool       // a claim answered from its idempotency key
}

// Err returns the refusal as an error, or nil.
func (r Result) Err() error {
	if r.Refusal == nil {
		return nil
	}
	return r.Refusal
}
