package api

import "time"

// ClusterStatus is the reply of GET /api/v1/cluster.
type ClusterStatus struct {
	Server    ServerID       `json:"server"` // who answered
	Leader    ServerID       `json:"leader,omitempty"`
	Term      uint64         `json:"term"`
	Applied   uint64         `json:"applied_index"`
	StateTime time.Time      `json:"state_time"`
	Servers   []ServerStatus `json:"servers"`
	Edges     []EdgeStatus   `json:"edges,omitempty"` // known to the leader only
	Store     StoreStatus    `json:"store"`
	Version   string         `json:"version"`
}

// ServerStatus is one member of the Raft group.
type ServerStatus struct {
	ID      ServerID `json:"id"`
	Address string   `json:"address"` // Raft
	URL     string   `json:"url,omitempty"`
	Voter   bool     `json:"voter"`
	Leader  bool     `json:"leader"`
	Alive   bool     `json:"alive"` // as gossip sees it
}

// EdgeStatus is how an edge last answered.
type EdgeStatus struct {
	ID         EdgeID    `json:"id"`
	Healthy    bool      `json:"healthy"`
	Routes     int       `json:"routes"`
	Reason     string    `json:"reason,omitempty"`
	LastPushed time.Time `json:"last_pushed"`
}

// StoreStatus is how the store of rate limits and session records does.
type StoreStatus struct {
	Kind    string `json:"kind"` // valkey or embedded
	Healthy bool   `json:"healthy"`
	Reason  string `json:"reason,omitempty"`
}

// NodeStatus is one node in GET /api/v1/nodes.
type NodeStatus struct {
	ID        NodeID    `json:"id"`
	URL       string    `json:"url"`
	Status    NodeState `json:"status"`
	HostClass HostClass `json:"host_class"`
	Restores  bool      `json:"restores"`
	Reason    string    `json:"reason,omitempty"`
	Capacity  int       `json:"capacity"`
	Instances int       `json:"instances"`
	Leased    int       `json:"leased"`
	Versions  Versions  `json:"versions"`
	ChangedAt time.Time `json:"changed_at"`
}

// NodeState is whether a node is used.
type NodeState string

// The node states.
const (
	NodeUp   NodeState = "up"
	NodeDown NodeState = "down"
)

// LeaseStatus is one lease in GET /api/v1/leases, for operators. It names the
// demo by a prefix of its ID, because the whole ID opens it.
type LeaseStatus struct {
	ID        string       `json:"id"`
	State     DemoState    `json:"state"`
	Template  TemplateName `json:"template"`
	Instance  InstanceID   `json:"instance"`
	Node      NodeID       `json:"node"`
	Host      string       `json:"host"`
	Epoch     uint64       `json:"epoch"`
	CreatedAt time.Time    `json:"created_at"`
	ExpiresAt time.Time    `json:"expires_at"`
}

// InstanceStatus is one instance in GET /api/v1/instances.
type InstanceStatus struct {
	ID         InstanceID    `json:"id"`
	Template   TemplateRef   `json:"template"`
	Node       NodeID        `json:"node"`
	State      InstanceState `json:"state"`
	Host       string        `json:"host"`
	Address    string        `json:"address,omitempty"`
	Checkpoint Digest        `json:"checkpoint,omitempty"`
	Reason     string        `json:"reason,omitempty"`
	Stages     []Stage       `json:"stages,omitempty"`
	CreatedAt  time.Time     `json:"created_at"`
}

// TemplateStatus is one template in GET /api/v1/templates.
type TemplateStatus struct {
	Template    Template           `json:"template"`
	Revision    uint64             `json:"revision"`
	Stats       TemplateStats      `json:"stats"`
	Checkpoints []CheckpointStatus `json:"checkpoints,omitempty"`
}

// CheckpointStatus is the checkpoint of a template revision for a host class.
type CheckpointStatus struct {
	HostClass HostClass       `json:"host_class"`
	State     CheckpointState `json:"state"`
	Builder   NodeID          `json:"builder,omitempty"`
	Digest    Digest          `json:"digest,omitempty"`
	Size      Bytes           `json:"size,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	Stages    []Stage         `json:"stages,omitempty"`
}

// Health is the reply of GET /health, /health/live and /health/ready.
type Health struct {
	Live   bool     `json:"live"`
	Ready  bool     `json:"ready"`
	Leader string   `json:"leader,omitempty"`
	Why    []string `json:"why,omitempty"` // what keeps it from being ready
}

// MemberMeta is what a member says of itself in gossip. Encoded it must stay
// below memberlist's 512 bytes.
type MemberMeta struct {
	Role      Role      `json:"r"`
	HTTP      string    `json:"h"`           // address and port of its API
	Raft      string    `json:"a,omitempty"` // schedulers: address and port of Raft
	HostClass HostClass `json:"c,omitempty"` // agents
	Joined    bool      `json:"j,omitempty"` // schedulers: already part of a Raft group, so nobody may bootstrap another
}

// Role is what a member of the gossip is.
type Role string

// The roles.
const (
	RoleScheduler Role = "scheduler"
	RoleAgent     Role = "agent"
)
