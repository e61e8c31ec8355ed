package state

import (
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// longestLease bounds the durations in commands, so that no sum of times
	// leaves the range of the time indexes. Operators' limits are stricter and
	// belong to the proposer.
	longestLease = 30 * 24 * time.Hour

	// A claim is remembered for claimKept, and for claimKeptAfter beyond the
	// latest possible end of its lease, whichever is longer: a client that
	// repeats a request within a day, or while its demo may still run, gets the
	// same demo and never a second one.
	claimKept      = 24 * time.Hour
	claimKeptAfter = time.Hour
)

func (c ClaimLease) apply(x *tx) Result {
	if !validKey(string(c.Lease)) || len(c.IdempotencyKey) > maxKey {
		return invalid("the claim has no usable lease ID or idempotency key")
	}
	ttl, longest := c.TTL.D(), c.MaxTTL.D()
	if ttl <= 0 || ttl > longest || longest > longestLease {
		return invalid("a lease of %s out of at most %s is not possible", ttl, longest)
	}
	if result, known := x.replay(c); known {
		return result
	}
	if _, taken := x.leases.Get([]byte(c.Lease)); taken {
		return conflict("the lease exists already")
	}
	i, refusal, ok := x.warm(c.Instance, c.InstanceRevision)
	if !ok {
		return refusal
	}
	l := &Lease{
		ID: c.Lease, Template: i.Template, Instance: i.ID, Host: i.Host,
		State: api.DemoActive, Epoch: 1, Revision: 1,
		CreatedAt: x.now, ExpiresAt: x.now.Add(ttl), LatestExpiry: x.now.Add(longest),
	}
	x.putLease(l)
	i = x.bind(i, l.ID)
	if c.IdempotencyKey != "" {
		until := l.LatestExpiry.Add(claimKeptAfter)
		if day := x.now.Add(claimKept); day.After(until) {
			until = day
		}
		x.putClaim(&Claim{Key: c.IdempotencyKey, Fingerprint: c.Fingerprint, Lease: l.ID, ExpiresAt: until})
	}
	return Result{Lease: l, Instance: i}
}

// replay answers a claim whose idempotency key is known. A key that is over
// is as good as unknown, whether or not it was collected yet.
func (x *tx) replay(c ClaimLease) (Result, bool) {
	if c.IdempotencyKey == "" {
		return Result{}, false
	}
	known, ok := x.claims.Get([]byte(c.IdempotencyKey))
	if !ok || !known.ExpiresAt.After(x.now) {
		return Result{}, false
	}
	if known.Fingerprint != c.Fingerprint {
		return conflict("this Idempotency-Key was used for another request; use a new one"), true
	}
	l, ok := x.leases.Get([]byte(known.Lease))
	if !ok {
		return notFound("the demo of this Idempotency-Key has ended; use a new key for a new demo"), true
	}
	i, _ := x.instances.Get([]byte(l.Instance))
	return Result{Lease: l, Instance: i, Replayed: true}, true
}

// warm returns an instance that can be leased, in the revision that the
// proposer saw.
func (x *tx) warm(id api.InstanceID, revision uint64) (*Instance, Result, bool) {
	i, refusal, ok := x.instance(id, revision)
	switch {
	case !ok:
		return nil, refusal, false
	case i.State != api.InstanceWarm:
		return nil, conflict("instance %s is %s, not warm", id, i.State), false
	case !x.nodeUp(i.Node):
		return nil, conflict("node %s of instance %s is down", i.Node, id), false
	}
	return i, Result{}, true
}

func (x *tx) bind(i *Instance, id api.LeaseID) *Instance {
	return x.changeInstance(i, func(n *Instance) { n.State, n.Lease = api.InstanceLeased, id })
}

// active returns a lease that has not ended, in the revision that the proposer
// saw. Refusals do not name it: its ID is a secret.
func (x *tx) active(id api.LeaseID, revision uint64) (*Lease, Result, bool) {
	l, ok := x.leases.Get([]byte(id))
	switch {
	case !ok:
		return nil, notFound("there is no such demo"), false
	case l.State.Ended():
		return nil, conflict("the demo has ended: it is %s", l.State), false
	case l.Revision != revision:
		return nil, conflict("the demo has changed since; look again"), false
	}
	return l, Result{}, true
}

func (c RenewLease) apply(x *tx) Result {
	l, refusal, ok := x.active(c.Lease, c.Revision)
	if !ok {
		return refusal
	}
	end := utc(c.ExpiresAt)
	if !end.After(x.now) {
		return invalid("the new end of the demo is in the past")
	}
	if end.After(l.LatestExpiry) {
		end = l.LatestExpiry
	}
	if !end.After(x.now) {
		return conflict("the demo has reached its latest end and cannot be extended")
	}
	return Result{Lease: x.changeLease(l, func(n *Lease) { n.ExpiresAt = end })}
}

func (c ReleaseLease) apply(x *tx) Result {
	l, refusal, ok := x.active(c.Lease, c.Revision)
	if !ok {
		return refusal
	}
	return Result{Lease: x.end(l, api.DemoReleased)}
}

func (c ExpireLeases) apply(x *tx) Result {
	for _, named := range c.Leases {
		l, _, ok := x.active(named.Lease, named.Revision)
		if ok && !l.ExpiresAt.After(x.now) {
			x.end(l, api.DemoExpired)
		}
	}
	return Result{}
}

func (c LoseLease) apply(x *tx) Result {
	l, refusal, ok := x.active(c.Lease, c.Revision)
	if !ok {
		return refusal
	}
	if i, exists := x.instances.Get([]byte(l.Instance)); exists && i.State == api.InstanceLeased && x.nodeUp(i.Node) {
		return conflict("instance %s of the demo still serves", i.ID)
	}
	return Result{Lease: x.end(l, api.DemoLost)}
}

// end ends an active lease, and its instance with it.
func (x *tx) end(l *Lease, s api.DemoState) *Lease {
	x.retire(l.Instance, "the demo is "+string(s))
	return x.changeLease(l, func(n *Lease) { n.State, n.EndedAt = s, x.now })
}

// retire begins the removal of the instance that a lease had. One that failed
// before is already being removed.
func (x *tx) retire(id api.InstanceID, reason string) {
	if i, ok := x.instances.Get([]byte(id)); ok && i.State == api.InstanceLeased {
		x.changeInstance(i, func(n *Instance) { n.State, n.Reason = api.InstanceEnding, reason })
	}
}

func (c RebindLease) apply(x *tx) Result {
	l, refusal, ok := x.active(c.Lease, c.Revision)
	if !ok {
		return refusal
	}
	i, refusal, ok := x.warm(c.Instance, c.InstanceRevision)
	if !ok {
		return refusal
	}
	if i.Template.Name != l.Template.Name {
		return conflict("instance %s is of template %s, the demo of %s", i.ID, i.Template.Name, l.Template.Name)
	}
	x.retire(l.Instance, "the demo moved to another instance")
	i = x.bind(i, l.ID)
	return Result{Instance: i, Lease: x.changeLease(l, func(n *Lease) {
		n.Instance, n.Template = i.ID, i.Template
		n.Epoch++
	})}
}

func (c GrantGrace) apply(x *tx) Result {
	grace := c.Grace.D()
	if grace < 0 || grace > longestLease {
		return invalid("a grace of %s is not possible", grace)
	}
	end := x.now.Add(grace)
	var short []*Lease // collected first: the tree must not change under its iterator
	it := x.byExpiry.Root().Iterator()
	for _, l, ok := it.Next(); ok && l.ExpiresAt.Before(end); _, l, ok = it.Next() {
		short = append(short, l)
	}
	for _, l := range short {
		x.changeLease(l, func(n *Lease) {
			n.ExpiresAt = end
			if end.After(n.LatestExpiry) {
				n.LatestExpiry = end
			}
		})
	}
	return Result{}
}

func (c Collect) apply(x *tx) Result {
	if c.Limit <= 0 {
		return invalid("a collection needs a limit above 0")
	}
	before := utc(c.EndedBefore)
	var leases []*Lease
	ends := x.byEnd.Root().Iterator()
	for _, l, ok := ends.Next(); ok && len(leases) < c.Limit && l.EndedAt.Before(before); _, l, ok = ends.Next() {
		leases = append(leases, l)
	}
	for _, l := range leases {
		x.deleteLease(l)
	}
	var claims []*Claim
	over := x.byClaimEnd.Root().Iterator()
	for _, k, ok := over.Next(); ok && len(claims) < c.Limit && !k.ExpiresAt.After(x.now); _, k, ok = over.Next() {
		claims = append(claims, k)
	}
	for _, k := range claims {
		x.deleteClaim(k)
	}
	return Result{}
}
