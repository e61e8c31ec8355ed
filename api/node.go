package api

import "time"

// Desired is everything that one node should do, sent by the leader. It is
// complete: what it does not name must go. Sending it again changes nothing.
type Desired struct {
	Term        uint64             `json:"term"`       // of the sending leader; agents refuse lower ones
	Generation  uint64             `json:"generation"` // rises within a term
	Templates   []TemplateRevision `json:"templates,omitempty"`
	Builds      []Build            `json:"builds,omitempty"`
	Checkpoints []CheckpointSource `json:"checkpoints,omitempty"`
	Instances   []DesiredInstance  `json:"instances,omitempty"`
}

// TemplateRevision is one revision of a template.
type TemplateRevision struct {
	Template Template `json:"template"`
	Revision uint64   `json:"revision"`
}

// TemplateRef names one revision of a template.
type TemplateRef struct {
	Name     TemplateName `json:"name"`
	Revision uint64       `json:"revision"`
}

// Ref returns the name of r.
func (r TemplateRevision) Ref() TemplateRef {
	return TemplateRef{Name: r.Template.Name, Revision: r.Revision}
}

// Build asks a node to boot, warm up and checkpoint a template. Attempt rises
// when the leader asks again after a failure.
type Build struct {
	Template TemplateRef `json:"template"`
	Attempt  uint64      `json:"attempt"`
}

// CheckpointSource is a checkpoint that a node should hold, and the agents it
// can be fetched from.
type CheckpointSource struct {
	Digest  Digest      `json:"digest"`
	For     TemplateRef `json:"for"`
	Sources []string    `json:"sources,omitempty"` // base URLs of agents, best first
}

// DesiredInstance is an instance that a node should keep.
type DesiredInstance struct {
	ID         InstanceID    `json:"id"`
	Template   TemplateRef   `json:"template"`
	Checkpoint Digest        `json:"checkpoint,omitempty"` // empty: boot cold
	Host       string        `json:"host"`                 // public host name
	URL        string        `json:"url"`                  // public base URL
	State      InstanceState `json:"state"`                // warm or leased
	Epoch      uint64        `json:"epoch,omitempty"`      // of the lease; agents refuse lower ones
	// ExpiresIn is what is left of the lease at the time of sending. The agent
	// counts it down on its own monotonic clock and then ends the instance,
	// whether or not it hears of anybody.
	ExpiresIn Duration `json:"expires_in,omitempty"`
}

// Observed is what a node found when it last looked.
type Observed struct {
	Node        NodeInfo             `json:"node"`
	Boot        string               `json:"boot"`     // random per agent process; revisions of different boots do not compare
	Revision    uint64               `json:"revision"` // rises with every change
	Term        uint64               `json:"term"`     // of the last Desired that was accepted
	Generation  uint64               `json:"generation"`
	Instances   []ObservedInstance   `json:"instances,omitempty"`
	Checkpoints []ObservedCheckpoint `json:"checkpoints,omitempty"`
	Builds      []ObservedBuild      `json:"builds,omitempty"`
}

// NodeInfo describes a host and what its preflight found.
type NodeInfo struct {
	ID        NodeID    `json:"id"`
	HostClass HostClass `json:"host_class"`
	Restores  bool      `json:"restores"`         // false: this node only boots cold
	Reason    string    `json:"reason,omitempty"` // why it does not restore, in plain words
	Capacity  int       `json:"capacity"`         // instances at most
	Versions  Versions  `json:"versions"`
	// MemoryAvailable and DiskAvailable are hints, rounded and refreshed lazily.
	MemoryAvailable Bytes `json:"memory_available"`
	DiskAvailable   Bytes `json:"disk_available"`
}

// Versions are the parts that a checkpoint depends on.
type Versions struct {
	Agent   string `json:"agent"`
	Podman  string `json:"podman"`
	Runtime string `json:"runtime"`
	CRIU    string `json:"criu"`
	Kernel  string `json:"kernel"`
}

// ObservedInstance is an instance that exists on a node, or that failed there.
// A failed one is reported until the leader stops asking for it.
type ObservedInstance struct {
	ID          InstanceID    `json:"id"`
	State       InstanceState `json:"state"`
	Epoch       uint64        `json:"epoch,omitempty"`
	Port        int           `json:"port,omitempty"` // on the node, where it serves
	Credentials *Credentials  `json:"credentials,omitempty"`
	Reason      string        `json:"reason,omitempty"` // with failed
	Stages      []Stage       `json:"stages,omitempty"`
}

// Stage is how long one step of a start or of a build took.
type Stage struct {
	Name string   `json:"name"`
	Took Duration `json:"took"`
}

// The stages of builds and starts.
const (
	StageColdBoot   = "cold_boot"  // create and start until healthy
	StageWarmup     = "warmup"     // warm-up requests and the before-checkpoint hook
	StageCheckpoint = "checkpoint" // the container is frozen and dumped
	StageCommit     = "commit"     // the warm image is made
	StagePack       = "pack"       // the checkpoint is packed and hashed
	StagePrepare    = "prepare"    // create and initialise the container
	StageRestore    = "restore"    // the restore call
	StageHook       = "hook"       // the after-restore hook
	StageProbe      = "probe"      // until the first good page
)

// CheckpointState is how far a node is with holding a checkpoint.
type CheckpointState string

// The checkpoint states.
const (
	CheckpointFetching CheckpointState = "fetching"
	CheckpointBuilding CheckpointState = "building"
	CheckpointReady    CheckpointState = "ready"
	CheckpointFailed   CheckpointState = "failed"
)

// ObservedCheckpoint is a checkpoint that a node holds or fetches.
type ObservedCheckpoint struct {
	Digest Digest          `json:"digest"`
	State  CheckpointState `json:"state"`
	Reason string          `json:"reason,omitempty"`
}

// ObservedBuild is how a build that the leader asked for went.
type ObservedBuild struct {
	Build  Build           `json:"build"`
	State  CheckpointState `json:"state"`            // building, ready or failed
	Digest Digest          `json:"digest,omitempty"` // with ready
	Size   Bytes           `json:"size,omitempty"`
	Reason string          `json:"reason,omitempty"` // with failed
	Stages []Stage         `json:"stages,omitempty"`
}

// Manifest lists the content of a checkpoint. Its own SHA-256, over its
// canonical encoding, is the checkpoint's digest.
type Manifest struct {
	Version   int         `json:"version"`
	For       TemplateRef `json:"for"`
	HostClass HostClass   `json:"host_class"`
	Versions  Versions    `json:"versions"`
	Image     string      `json:"image"` // ID of the warm image
	CreatedAt time.Time   `json:"created_at"`
	Blobs     []Blob      `json:"blobs"`
}

// Blob is one file of a checkpoint, fetched by its digest.
type Blob struct {
	Name   string `json:"name"` // "pages.tar" or "image.tar"
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"` // bytes
}
