package state

import (
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/boss/demo-multiplexer/api"
)

// tx collects the changes of the commands of one log entry. It alone writes
// records and indexes, so that the two cannot part. A command checks
// everything before its first change: there is no rollback within a tx.
type tx struct {
	revision       uint64
	now            time.Time // state time of the running command
	clusterVersion uint32

	templates   *iradix.Txn[*Template]
	nodes       *iradix.Txn[*Node]
	checkpoints *iradix.Txn[*Checkpoint]
	instances   *iradix.Txn[*Instance]
	leases      *iradix.Txn[*Lease]
	claims      *iradix.Txn[*Claim]

	byTemplate *iradix.Txn[*Instance]
	byNode     *iradix.Txn[*Instance]
	byExpiry   *iradix.Txn[*Lease]
	byEnd      *iradix.Txn[*Lease]
	byClaimEnd *iradix.Txn[*Claim]

	byHost         *iradix.Txn[api.InstanceID]
	templateCounts *iradix.Txn[Counts]
	nodeCounts     *iradix.Txn[Counts]
}

func begin(v *View) *tx {
	return &tx{
		revision:       v.revision,
		now:            v.time,
		clusterVersion: v.clusterVersion,

		templates:   v.templates.Txn(),
		nodes:       v.nodes.Txn(),
		checkpoints: v.checkpoints.Txn(),
		instances:   v.instances.Txn(),
		leases:      v.leases.Txn(),
		claims:      v.claims.Txn(),

		byTemplate: v.byTemplate.Txn(),
		byNode:     v.byNode.Txn(),
		byExpiry:   v.byExpiry.Txn(),
		byEnd:      v.byEnd.Txn(),
		byClaimEnd: v.byClaimEnd.Txn(),

		byHost:         v.byHost.Txn(),
		templateCounts: v.templateCounts.Txn(),
		nodeCounts:     v.nodeCounts.Txn(),
	}
}

// commit returns the view with all changes. The tx must not be used after it.
func (x *tx) commit() *View {
	return &View{
		revision:       x.revision,
		time:           x.now,
		clusterVersion: x.clusterVersion,

		templates:   x.templates.CommitOnly(),
		nodes:       x.nodes.CommitOnly(),
		checkpoints: x.checkpoints.CommitOnly(),
		instances:   x.instances.CommitOnly(),
		leases:      x.leases.CommitOnly(),
		claims:      x.claims.CommitOnly(),

		byTemplate: x.byTemplate.CommitOnly(),
		byNode:     x.byNode.CommitOnly(),
		byExpiry:   x.byExpiry.CommitOnly(),
		byEnd:      x.byEnd.CommitOnly(),
		byClaimEnd: x.byClaimEnd.CommitOnly(),

		byHost:         x.byHost.CommitOnly(),
		templateCounts: x.templateCounts.CommitOnly(),
		nodeCounts:     x.nodeCounts.CommitOnly(),
	}
}

// Every put takes a record that no view holds yet and that the caller does
// not touch again.

func (x *tx) putTemplate(t *Template)     { x.templates.Insert([]byte(t.Spec.Name), t) }
func (x *tx) putNode(n *Node)             { x.nodes.Insert([]byte(n.ID), n) }
func (x *tx) putCheckpoint(c *Checkpoint) { x.checkpoints.Insert(c.Key.bytes(), c) }

func (x *tx) deleteCheckpoint(key CheckpointKey) { x.checkpoints.Delete(key.bytes()) }

// putInstance adds an instance or replaces its record. Template, node and host
// of an instance never change.
func (x *tx) putInstance(i *Instance) {
	old, known := x.instances.Insert([]byte(i.ID), i)
	if known {
		x.byTemplate.Delete(old.templateKey())
	} else {
		x.byHost.Insert([]byte(i.Host), i.ID)
	}
	x.byTemplate.Insert(i.templateKey(), i)
	x.byNode.Insert(i.nodeKey(), i)
	x.count(old, i)
}

func (x *tx) deleteInstance(i *Instance) {
	x.instances.Delete([]byte(i.ID))
	x.byTemplate.Delete(i.templateKey())
	x.byNode.Delete(i.nodeKey())
	x.byHost.Delete([]byte(i.Host))
	x.count(i, nil)
}

// count moves an instance from the state of its old record, if it has one, to
// that of its new one, if it has one.
func (x *tx) count(old, now *Instance) {
	i := now
	if i == nil {
		i = old
	}
	recount(x.templateCounts, string(i.Template.Name), old, now)
	recount(x.nodeCounts, string(i.Node), old, now)
}

func recount(t *iradix.Txn[Counts], key string, old, now *Instance) {
	c, _ := t.Get([]byte(key))
	if old != nil {
		*c.counter(old.State)--
	}
	if now != nil {
		*c.counter(now.State)++
	}
	if c == (Counts{}) { // what is gone leaves nothing behind
		t.Delete([]byte(key))
		return
	}
	t.Insert([]byte(key), c)
}

// putLease adds a lease or replaces its record.
func (x *tx) putLease(l *Lease) {
	old, known := x.leases.Insert([]byte(l.ID), l)
	if known {
		x.unindexLease(old)
	}
	if l.State.Ended() {
		x.byEnd.Insert(l.endKey(), l)
	} else {
		x.byExpiry.Insert(l.expiryKey(), l)
	}
}

func (x *tx) deleteLease(l *Lease) {
	x.leases.Delete([]byte(l.ID))
	x.unindexLease(l)
}

func (x *tx) unindexLease(l *Lease) {
	if l.State.Ended() {
		x.byEnd.Delete(l.endKey())
	} else {
		x.byExpiry.Delete(l.expiryKey())
	}
}

// putClaim adds a claim or replaces one that is over.
func (x *tx) putClaim(c *Claim) {
	if old, known := x.claims.Insert([]byte(c.Key), c); known {
		x.byClaimEnd.Delete(old.endKey())
	}
	x.byClaimEnd.Insert(c.endKey(), c)
}

func (x *tx) deleteClaim(c *Claim) {
	x.claims.Delete([]byte(c.Key))
	x.byClaimEnd.Delete(c.endKey())
}

// nodeUp reports whether a node is known and up.
func (x *tx) nodeUp(id api.NodeID) bool {
	n, ok := x.nodes.Get([]byte(id))
	return ok && n.Status == api.NodeUp
}

// changeInstance puts a changed copy of i in its place and returns it.
func (x *tx) changeInstance(i *Instance, change func(*Instance)) *Instance {
	c := *i
	change(&c)
	c.Revision++
	c.ChangedAt = x.now
	x.putInstance(&c)
	return &c
}

// changeLease puts a changed copy of l in its place and returns it.
func (x *tx) changeLease(l *Lease, change func(*Lease)) *Lease {
	c := *l
	change(&c)
	c.Revision++
	x.putLease(&c)
	return &c
}
