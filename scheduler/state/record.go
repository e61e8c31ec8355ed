package state

import (
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Records are immutable once they are in a view: a change puts a changed copy
// in their place. They are the snapshot format, so fields are only added.

// Template is the current revision of a template.
type Template struct {
	Spec      api.Template `json:"spec"`
	Revision  uint64       `json:"revision"`
	AppliedAt time.Time    `json:"applied_at"`
}

// Ref names the revision.
func (t *Template) Ref() api.TemplateRef {
	return api.TemplateRef{Name: t.Spec.Name, Revision: t.Revision}
}

// Node is a host that runs an agent.
type Node struct {
	ID        api.NodeID    `json:"id"`
	URL       string        `json:"url"`     // base URL of the agent
	Address   string        `json:"address"` // IP address at which instances are reached
	HostClass api.HostClass `json:"host_class"`
	Restores  bool          `json:"restores"`
	Reason    string        `json:"reason,omitempty"`
	Capacity  int           `json:"capacity"`
	Versions  api.Versions  `json:"versions"`
	Status    api.NodeState `json:"status"`
	ChangedAt time.Time     `json:"changed_at"`
}

// CheckpointKey names the checkpoint of one template revision for one host
// class.
type CheckpointKey struct {
	Template  api.TemplateRef `json:"template"`
	HostClass api.HostClass   `json:"host_class"`
}

// Checkpoint is the build, or the outcome of the build, of a checkpoint.
type Checkpoint struct {
	Key       CheckpointKey       `json:"key"`
	State     api.CheckpointState `json:"state"` // building, ready or failed
	Builder   api.NodeID          `json:"builder"`
	Attempt   uint64              `json:"attempt"` // 1 for the first build
	Digest    api.Digest          `json:"digest,omitempty"`
	Size      api.Bytes           `json:"size,omitempty"`
	Reason    string              `json:"reason,omitempty"`
	Stages    []api.Stage         `json:"stages,omitempty"`
	ChangedAt time.Time           `json:"changed_at"`
}

// Instance is one container on one node: pending, warm, leased, ending or
// failed.
type Instance struct {
	ID          api.InstanceID    `json:"id"`
	Template    api.TemplateRef   `json:"template"`
	Node        api.NodeID        `json:"node"`
	Checkpoint  api.Digest        `json:"checkpoint,omitempty"` // empty: booted cold
	Host        string            `json:"host"`                 // public host name
	State       api.InstanceState `json:"state"`
	Address     string            `json:"address,omitempty"` // "ip:port", once warm
	Credentials *api.Credentials  `json:"credentials,omitempty"`
	Lease       api.LeaseID       `json:"lease,omitempty"` // once leased
	Reason      string            `json:"reason,omitempty"`
	Stages      []api.Stage       `json:"stages,omitempty"`
	Revision    uint64            `json:"revision"` // rises with every change of this record
	CreatedAt   time.Time         `json:"created_at"`
	ChangedAt   time.Time         `json:"changed_at"`
}

// Lease is a visitor's right to one instance until a time.
type Lease struct {
	ID        api.LeaseID     `json:"id"`
	Template  api.TemplateRef `json:"template"`
	Instance  api.InstanceID  `json:"instance"`
	Host      string          `json:"host"` // public host name; stays when the lease moves
	State     api.DemoState   `json:"state"`
	Epoch     uint64          `json:"epoch"`    // 1, and one more with each move
	Revision  uint64          `json:"revision"` // rises with every change of this record
	CreatedAt time.Time       `json:"created_at"`
	ExpiresAt time.Time       `json:"expires_at"`
	// LatestExpiry is what extensions can reach at most.
	LatestExpiry time.Time `json:"latest_expiry"`
	EndedAt      time.Time `json:"ended_at,omitzero"`
}

// Claim remembers which lease an idempotency key was given.
type Claim struct {
	Key         string      `json:"key"`
	Fingerprint string      `json:"fingerprint"` // of the request, to refuse another one under the same key
	Lease       api.LeaseID `json:"lease"`
	ExpiresAt   time.Time   `json:"expires_at"`
}
