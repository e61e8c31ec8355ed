package state

import (
	"encoding/binary"
	"iter"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/boss/demo-multiplexer/api"
)

// View is one immutable version of the replicated state. Reading it needs no
// lock, and what it returns must not be changed.
type View struct {
	revision       uint64
	time           time.Time
	clusterVersion uint32

	templates   *iradix.Tree[*Template]   // by name
	nodes       *iradix.Tree[*Node]       // by ID
	checkpoints *iradix.Tree[*Checkpoint] // by template, revision, host class
	instances   *iradix.Tree[*Instance]   // by ID
	leases      *iradix.Tree[*Lease]      // by ID
	claims      *iradix.Tree[*Claim]      // by idempotency key

	// Indexes: derived, rebuilt by Restore, never written out.
	byTemplate *iradix.Tree[*Instance] // template, state, time of change, ID
	byNode     *iradix.Tree[*Instance] // node, ID
	byExpiry   *iradix.Tree[*Lease]    // active leases: expiry, ID
	byEnd      *iradix.Tree[*Lease]    // ended leases: end, ID
	byClaimEnd *iradix.Tree[*Claim]    // expiry, key

	byHost         *iradix.Tree[api.InstanceID] // instances: public host name
	templateCounts *iradix.Tree[Counts]         // instances: template
	nodeCounts     *iradix.Tree[Counts]         // instances: node
}

// New returns the state before the first command.
func New() *View {
	return &View{
		templates:   iradix.New[*Template](),
		nodes:       iradix.New[*Node](),
		checkpoints: iradix.New[*Checkpoint](),
		instances:   iradix.New[*Instance](),
		leases:      iradix.New[*Lease](),
		claims:      iradix.New[*Claim](),
		byTemplate:  iradix.New[*Instance](),
		byNode:      iradix.New[*Instance](),
		byExpiry:    iradix.New[*Lease](),
		byEnd:       iradix.New[*Lease](),
		byClaimEnd:  iradix.New[*Claim](),

		byHost:         iradix.New[api.InstanceID](),
		templateCounts: iradix.New[Counts](),
		nodeCounts:     iradix.New[Counts](),
	}
}

// Revision rises by one with every command, refused ones included.
func (v *View) Revision() uint64 { return v.revision }

// Time is the state time: the latest leader time of any command so far. It
// never goes back.
func (v *View) Time() time.Time { return v.time }

// ClusterVersion is the command set that every voter understands.
func (v *View) ClusterVersion() uint32 { return v.clusterVersion }

// Template returns the current revision of a template.
func (v *View) Template(name api.TemplateName) (*Template, bool) {
	return v.templates.Get([]byte(name))
}

// Templates returns the current revisions in order of their names.
func (v *View) Templates() iter.Seq[*Template] { return all(v.templates, nil) }

// Node returns a node.
func (v *View) Node(id api.NodeID) (*Node, bool) { return v.nodes.Get([]byte(id)) }

// Nodes returns the nodes in order of their IDs.
func (v *View) Nodes() iter.Seq[*Node] { return all(v.nodes, nil) }

// Checkpoint returns the checkpoint of a template revision for a host class.
func (v *View) Checkpoint(key CheckpointKey) (*Checkpoint, bool) {
	return v.checkpoints.Get(key.bytes())
}

// Checkpoints returns all checkpoints in a stable order.
func (v *View) Checkpoints() iter.Seq[*Checkpoint] { return all(v.checkpoints, nil) }

// CheckpointsOf returns the checkpoints of one template revision.
func (v *View) CheckpointsOf(ref api.TemplateRef) iter.Seq[*Checkpoint] {
	return all(v.checkpoints, refBytes(ref))
}

// Instance returns an instance.
func (v *View) Instance(id api.InstanceID) (*Instance, bool) { return v.instances.Get([]byte(id)) }

// Instances returns the instances in order of their IDs.
func (v *View) Instances() iter.Seq[*Instance] { return all(v.instances, nil) }

// InstancesOf returns the instances of a template, of all revisions, that are
// in a state, the longest in that state first.
func (v *View) InstancesOf(name api.TemplateName, s api.InstanceState) iter.Seq[*Instance] {
	return all(v.byTemplate, templateStatePrefix(name, s))
}

// InstancesOn returns the instances on a node in order of their IDs.
func (v *View) InstancesOn(id api.NodeID) iter.Seq[*Instance] {
	return all(v.byNode, append([]byte(id), 0))
}

// InstanceByHost returns the instance whose own public host name this is. The
// host name of a lease that moved stays with the lease.
func (v *View) InstanceByHost(host string) (*Instance, bool) {
	id, ok := v.byHost.Get([]byte(host))
	if !ok {
		return nil, false
	}
	return v.Instance(id)
}

// TemplateCounts counts the instances of a template, of all revisions.
func (v *View) TemplateCounts(name api.TemplateName) Counts {
	c, _ := v.templateCounts.Get([]byte(name))
	return c
}

// NodeCounts counts the instances on a node.
func (v *View) NodeCounts(id api.NodeID) Counts {
	c, _ := v.nodeCounts.Get([]byte(id))
	return c
}

// Lease returns a lease, active or lately ended.
func (v *View) Lease(id api.LeaseID) (*Lease, bool) { return v.leases.Get([]byte(id)) }

// Leases returns all leases, lately ended ones included, in order of their
// IDs.
func (v *View) Leases() iter.Seq[*Lease] { return all(v.leases, nil) }

// LeasesByExpiry returns the active leases, the first to expire first.
func (v *View) LeasesByExpiry() iter.Seq[*Lease] { return all(v.byExpiry, nil) }

// LeasesByEnd returns the ended leases that are still remembered, the first
// to end first.
func (v *View) LeasesByEnd() iter.Seq[*Lease] { return all(v.byEnd, nil) }

// ClaimsByExpiry returns the idempotency keys, the first to be forgotten
// first.
func (v *View) ClaimsByExpiry() iter.Seq[*Claim] { return all(v.byClaimEnd, nil) }

// Claim returns what an idempotency key was given.
func (v *View) Claim(key string) (*Claim, bool) { return v.claims.Get([]byte(key)) }

// ActiveLeases counts the leases that have not ended.
func (v *View) ActiveLeases() int { return v.byExpiry.Len() }

// all iterates over the values below a prefix in key order.
func all[T any](t *iradix.Tree[T], prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it := t.Root().Iterator()
		it.SeekPrefix(prefix)
		for _, value, ok := it.Next(); ok; _, value, ok = it.Next() {
			if !yield(value) {
				return
			}
		}
	}
}

// Keys. Names and IDs are DNS labels, so a zero byte separates them safely.

func refBytes(ref api.TemplateRef) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(ref.Name), 0), ref.Revision)
}

func (k CheckpointKey) bytes() []byte {
	return append(append(refBytes(k.Template), 0), k.HostClass...)
}

func templateStatePrefix(name api.TemplateName, s api.InstanceState) []byte {
	return append(append(append([]byte(name), 0), s...), 0)
}

func (i *Instance) templateKey() []byte {
	return append(timeKey(templateStatePrefix(i.Template.Name, i.State), i.ChangedAt), i.ID...)
}

func (l *Lease) expiryKey() []byte { return append(timeKey(nil, l.ExpiresAt), l.ID...) }

func (l *Lease) endKey() []byte { return append(timeKey(nil, l.EndedAt), l.ID...) }

func (c *Claim) endKey() []byte { return append(timeKey(nil, c.ExpiresAt), c.Key...) }

func (i *Instance) nodeKey() []byte {
	return append(append([]byte(i.Node), 0), i.ID...)
}

// timeKey appends t so that keys sort by time. State times are after 1970.
func timeKey(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixNano()))
}
