package pool

import (
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Desired is the last accepted [api.Desired] with what its reception added.
type Desired struct {
	api.Desired
	// Heard is when this process first accepted a Desired. While it is zero,
	// the rest comes from the disk: it fences and ends leases, and nothing is
	// started or removed because of it.
	Heard time.Time
	// Deadlines are the ends of leases on this process's monotonic clock.
	Deadlines map[api.InstanceID]time.Time
}

// Actual is what exists on this node.
type Actual struct {
	Restores    bool
	Reason      string // why Restores is false
	Capacity    int    // instances at most
	Instances   map[api.InstanceID]Instance
	Checkpoints map[api.Digest]Checkpoint
	Builds      map[api.TemplateRef]Build
}

// Instance is one local instance.
type Instance struct {
	api.ObservedInstance
	Exists    bool      // a container exists, or a worker is making or removing one
	Busy      bool      // a worker is at it
	Cancelled bool      // that worker was told to stop
	Named     bool      // a Desired that this process accepted named it
	RetryAt   time.Time // not before, after a removal that failed
	Failures  int       // removals that failed in a row

	changed uint64 // sequence number of the last change, to tell stale lists
}

// halfStarted reports whether i is a container that was found without the
// record that a completed start leaves.
func (i Instance) halfStarted() bool {
	return i.Exists && !i.Busy && i.State == api.InstanceRestoring
}

// Checkpoint is one local checkpoint. Its state is empty while it only lies
// on disk and nobody has made it ready since this process started.
type Checkpoint struct {
	State         api.CheckpointState
	Reason        string
	Busy          bool
	Sources       []string  // of the last attempt
	RetryAt       time.Time // not before, after an attempt that failed
	Failures      int       // attempts that failed in a row
	UnneededSince time.Time // zero: needed
}

// Build is one build that the leader asked for.
type Build struct {
	api.ObservedBuild
	Busy bool
}

// ActionKind says what an [Action] does.
type ActionKind int

// The kinds of action, in the order in which they are executed: what frees
// room comes before what takes it.
const (
	Cancel  ActionKind = iota // stop a start that is no longer wanted
	Remove                    // remove the container of an instance
	Forget                    // drop the record of an instance without container
	Lease                     // note that an instance is leased, and its epoch
	Fail                      // note that an instance cannot be started here
	Discard                   // remove a checkpoint
	Drop                      // drop the record of a build that nobody asks for
	Fetch                     // make a checkpoint ready
	Make                      // build a checkpoint
	Start                     // boot or restore an instance
)

// Action is one step from what exists towards what is desired.
type Action struct {
	Kind     ActionKind
	Instance api.InstanceID
	Epoch    uint64 // Lease
	Digest   api.Digest
	Build    api.Build
	Reason   string // Remove and Fail: what the leader is told
}
