package state

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/boss/demo-multiplexer/api"
)

// Check reports everything that is wrong with v: broken invariants and indexes
// that differ from the records. It reads everything, so it is for tests and
// for the examination of backups.
func Check(v *View) error {
	var c checker
	c.indexes(v)
	for i := range v.Instances() {
		c.instance(v, i)
	}
	holder := map[api.InstanceID]api.LeaseID{}
	for l := range v.Leases() {
		c.lease(v, l)
		if other, taken := holder[l.Instance]; taken && !l.State.Ended() {
			c.errorf("instance %s has two active leases, %s and %s", l.Instance, other, l.ID)
		}
		if !l.State.Ended() {
			holder[l.Instance] = l.ID
		}
	}
	for k := range all(v.claims, nil) {
		c.check(!k.ExpiresAt.IsZero(), "claim %s is never forgotten", k.Key)
	}
	return errors.Join(c.errs...)
}

type checker struct{ errs []error }

func (c *checker) errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *checker) check(ok bool, format string, args ...any) {
	if !ok {
		c.errorf(format, args...)
	}
}

func (c *checker) instance(v *View, i *Instance) {
	c.check(!i.ChangedAt.Before(i.CreatedAt) && !i.ChangedAt.After(v.time),
		"instance %s was created %s and changed %s, at state time %s", i.ID, i.CreatedAt, i.ChangedAt, v.time)
	c.check(i.Revision > 0, "instance %s has no revision", i.ID)
	_, ok := v.Template(i.Template.Name)
	c.check(ok, "instance %s is of an unknown template", i.ID)
	_, ok = v.Node(i.Node)
	c.check(ok, "instance %s is on an unknown node", i.ID)
	if i.State == api.InstanceLeased {
		l, ok := v.Lease(i.Lease)
		c.check(ok && !l.State.Ended() && l.Instance == i.ID, "instance %s is leased by %q, which does not hold it", i.ID, i.Lease)
	}
}

func (c *checker) lease(v *View, l *Lease) {
	c.check(l.Epoch > 0 && l.Revision >= l.Epoch, "lease %s has epoch %d and revision %d", l.ID, l.Epoch, l.Revision)
	c.check(!l.CreatedAt.After(v.time), "lease %s was created %s, after the state time %s", l.ID, l.CreatedAt, v.time)
	c.check(!l.ExpiresAt.After(l.LatestExpiry), "lease %s expires %s, after its latest expiry %s", l.ID, l.ExpiresAt, l.LatestExpiry)
	if l.State.Ended() {
		c.check(!l.EndedAt.Before(l.CreatedAt) && !l.EndedAt.After(v.time), "lease %s ended at %s", l.ID, l.EndedAt)
		return
	}
	c.check(l.EndedAt.IsZero(), "lease %s is active and ended at %s", l.ID, l.EndedAt)
	i, ok := v.Instance(l.Instance)
	c.check(!ok || i.State == api.InstanceFailed || i.State == api.InstanceLeased && i.Lease == l.ID,
		"active lease %s is on instance %s, which is not its own", l.ID, l.Instance)
}

// indexes compares every index with one that is built anew from the records.
func (c *checker) indexes(v *View) {
	x := begin(New())
	for t := range v.Templates() {
		x.putTemplate(t)
	}
	for n := range v.Nodes() {
		x.putNode(n)
	}
	for k := range v.Checkpoints() {
		x.putCheckpoint(k)
	}
	for i := range v.Instances() {
		x.putInstance(i)
	}
	for l := range v.Leases() {
		x.putLease(l)
	}
	for k := range all(v.claims, nil) {
		x.putClaim(k)
	}
	want := x.commit()
	equalTrees(c, "templates", v.templates, want.templates)
	equalTrees(c, "nodes", v.nodes, want.nodes)
	equalTrees(c, "checkpoints", v.checkpoints, want.checkpoints)
	equalTrees(c, "instances", v.instances, want.instances)
	equalTrees(c, "leases", v.leases, want.leases)
	equalTrees(c, "claims", v.claims, want.claims)
	equalTrees(c, "instances by template", v.byTemplate, want.byTemplate)
	equalTrees(c, "instances by node", v.byNode, want.byNode)
	equalTrees(c, "instances by host", v.byHost, want.byHost)
	equalTrees(c, "leases by expiry", v.byExpiry, want.byExpiry)
	equalTrees(c, "leases by end", v.byEnd, want.byEnd)
	equalTrees(c, "claims by end", v.byClaimEnd, want.byClaimEnd)
	equalTrees(c, "counts by template", v.templateCounts, want.templateCounts)
	equalTrees(c, "counts by node", v.nodeCounts, want.nodeCounts)
}

func equalTrees[T any](c *checker, name string, got, want *iradix.Tree[T]) {
	if got.Len() != want.Len() {
		c.errorf("%s: %d rows, not %d", name, got.Len(), want.Len())
		return
	}
	g, w := got.Root().Iterator(), want.Root().Iterator()
	for {
		gk, gv, more := g.Next()
		wk, wv, ok := w.Next()
		if !more || !ok {
			return
		}
		if !bytes.Equal(gk, wk) || !reflect.DeepEqual(gv, wv) {
			c.errorf("%s: row %q is %+v; the records say %q, %+v", name, gk, gv, wk, wv)
			return
		}
	}
}
