package state

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

// world is a replica that a test drives command by command.
type world struct {
	t  *testing.T
	v  *View
	at time.Time
}

// newWorld has template shop in revision 1, up nodes n1 and n2, instances w1
// (warm, on n1), w2 (warm, on n2) and p1 (pending, on n1).
func newWorld(t *testing.T) *world {
	w := &world{t: t, v: New(), at: epoch}
	w.must(PutTemplate{Spec: api.Template{Name: "shop", Image: "img", Port: 80}})
	for _, id := range []api.NodeID{"n1", "n2"} {
		w.must(PutNode{Node: Node{ID: id, HostClass: "x86", Capacity: 10}})
	}
	w.create("w1", "n1")
	w.create("w2", "n2")
	w.create("p1", "n1")
	w.must(WarmInstance{ID: "w1", Address: "10.0.0.1:4000"})
	w.must(WarmInstance{ID: "w2", Address: "10.0.0.2:4000"})
	return w
}

func (w *world) create(id api.InstanceID, node api.NodeID) {
	w.t.Helper()
	w.must(CreateInstance{ID: id, Template: api.TemplateRef{Name: "shop", Revision: 1}, Node: node, Host: "d-" + string(id)})
}

// try applies a command and checks that the replica is still sound.
func (w *world) try(c Command) Result {
	w.t.Helper()
	next, r := Apply(w.v, w.at, c)
	if err := Check(next); err != nil {
		w.t.Fatalf("after %+v: %v", c, err)
	}
	w.v = next
	return r
}

func (w *world) must(c Command) Result {
	w.t.Helper()
	r := w.try(c)
	if r.Refusal != nil {
		w.t.Fatalf("%+v refused: %v", c, r.Refusal)
	}
	return r
}

func (w *world) refused(c Command, code api.Code) {
	w.t.Helper()
	if r := w.try(c); api.CodeOf(r.Err()) != code {
		w.t.Errorf("%+v: got %v, want a refusal with code %s", c, r.Err(), code)
	}
}

func (w *world) instance(id api.InstanceID) *Instance {
	w.t.Helper()
	i, ok := w.v.Instance(id)
	if !ok {
		w.t.Fatalf("instance %s is gone", id)
	}
	return i
}

func (w *world) wantState(id api.InstanceID, want api.InstanceState) {
	w.t.Helper()
	if got := w.instance(id).State; got != want {
		w.t.Errorf("instance %s is %s, want %s", id, got, want)
	}
}

// lease leases instance id for a minute out of an hour.
func (w *world) lease(lease api.LeaseID, id api.InstanceID) *Lease {
	w.t.Helper()
	return w.must(claim(lease, w.instance(id))).Lease
}

func claim(lease api.LeaseID, i *Instance) ClaimLease {
	return ClaimLease{
		Lease: lease, Instance: i.ID, InstanceRevision: i.Revision,
		TTL: api.Duration(time.Minute), MaxTTL: api.Duration(time.Hour),
	}
}

func TestPutTemplate(t *testing.T) {
	w := newWorld(t)
	spec := api.Template{Name: "shop", Image: "img", Port: 80, Command: []string{}}
	if got := w.must(PutTemplate{Spec: spec}).Template.Revision; got != 1 {
		t.Errorf("an equal spec gave revision %d, want 1", got)
	}
	spec.Port = 81
	if got := w.must(PutTemplate{Spec: spec}).Template.Revision; got != 2 {
		t.Errorf("a changed spec gave revision %d, want 2", got)
	}
	w.refused(PutTemplate{}, api.CodeInvalid)
	w.refused(PutTemplate{Spec: api.Template{Name: "a\x00b"}}, api.CodeInvalid)
}

func TestNodes(t *testing.T) {
	w := newWorld(t)
	before, _ := w.v.Node("n1")
	w.at = w.at.Add(time.Minute)
	w.must(PutNode{Node: Node{ID: "n1", HostClass: "x86", Capacity: 10, Status: api.NodeDown, ChangedAt: w.at}})
	if after, _ := w.v.Node("n1"); after != before {
		t.Errorf("an equal node was replaced: %+v", after)
	}
	w.must(SetNodeStatus{Node: "n1", Status: api.NodeDown, Reason: "silent"})
	if n, _ := w.v.Node("n1"); n.Status != api.NodeDown || !n.ChangedAt.Equal(w.at) {
		t.Errorf("node = %+v, want down since %s", n, w.at)
	}
	w.wantState("w1", api.InstanceWarm)
	w.refused(claim("l1", w.instance("w1")), api.CodeConflict)
	w.refused(CreateInstance{ID: "i9", Template: api.TemplateRef{Name: "shop", Revision: 1}, Node: "n1", Host: "d-9"}, api.CodeConflict)
	w.must(PutNode{Node: Node{ID: "n1", HostClass: "x86", Capacity: 10}})
	w.lease("l1", "w1")
	w.refused(SetNodeStatus{Node: "n9", Status: api.NodeDown}, api.CodeNotFound)
	w.refused(SetNodeStatus{Node: "n1", Status: "tired"}, api.CodeInvalid)
	w.refused(PutNode{}, api.CodeInvalid)
}

func TestBuilds(t *testing.T) {
	w := newWorld(t)
	key := CheckpointKey{Template: api.TemplateRef{Name: "shop", Revision: 1}, HostClass: "x86"}
	start := func(node api.NodeID, attempt uint64) StartBuild {
		return StartBuild{Key: key, Builder: node, Attempt: attempt}
	}
	w.refused(start("n1", 2), api.CodeConflict)
	w.refused(start("n9", 1), api.CodeNotFound)
	w.refused(StartBuild{Key: CheckpointKey{Template: key.Template, HostClass: "arm"}, Builder: "n1", Attempt: 1}, api.CodeConflict)
	w.must(start("n1", 1))
	w.refused(start("n2", 2), api.CodeConflict) // n1 is still at it
	w.must(SetNodeStatus{Node: "n1", Status: api.NodeDown})
	w.must(start("n2", 2))
	w.refused(FinishBuild{Key: key, Attempt: 1, Digest: "c1"}, api.CodeConflict)
	w.must(FinishBuild{Key: key, Attempt: 2, Reason: "no CRIU"})
	w.must(start("n2", 3))
	w.must(FinishBuild{Key: key, Attempt: 3, Digest: "c1", Size: 7})
	w.refused(FinishBuild{Key: key, Attempt: 3, Digest: "c2"}, api.CodeConflict)
	w.refused(start("n2", 4), api.CodeConflict)
	if c, _ := w.v.Checkpoint(key); c.State != api.CheckpointReady || c.Digest != "c1" || c.Size != 7 {
		t.Errorf("checkpoint = %+v, want ready with digest c1", c)
	}

	w.must(CreateInstance{ID: "i1", Template: key.Template, Node: "n2", Checkpoint: "c1", Host: "d-i1"})
	w.refused(RemoveCheckpoint{Key: key}, api.CodeConflict) // current
	w.must(PutTemplate{Spec: api.Template{Name: "shop", Image: "img", Port: 81}})
	w.refused(RemoveCheckpoint{Key: key}, api.CodeConflict) // used by i1
	w.must(FailInstance{ID: "i1", Revision: 1})
	w.must(RemoveInstance{ID: "i1"})
	w.must(RemoveCheckpoint{Key: key})
	w.refused(RemoveCheckpoint{Key: key}, api.CodeNotFound)
	w.refused(start("n2", 1), api.CodeConflict) // outdated revision
}

func TestInstanceLife(t *testing.T) {
	w := newWorld(t)
	ref := api.TemplateRef{Name: "shop", Revision: 1}
	for name, c := range map[string]struct {
		command Command
		code    api.Code
	}{
		"taken ID":          {CreateInstance{ID: "w1", Template: ref, Node: "n1", Host: "d-new"}, api.CodeConflict},
		"taken host":        {CreateInstance{ID: "new", Template: ref, Node: "n1", Host: "d-w1"}, api.CodeConflict},
		"unknown template":  {CreateInstance{ID: "new", Template: api.TemplateRef{Name: "x", Revision: 1}, Node: "n1", Host: "h"}, api.CodeNotFound},
		"outdated template": {CreateInstance{ID: "new", Template: api.TemplateRef{Name: "shop", Revision: 2}, Node: "n1", Host: "h"}, api.CodeConflict},
		"unknown node":      {CreateInstance{ID: "new", Template: ref, Node: "n9", Host: "h"}, api.CodeNotFound},
		"no host":           {CreateInstance{ID: "new", Template: ref, Node: "n1"}, api.CodeInvalid},
		"warm twice":        {WarmInstance{ID: "w1", Address: "10.0.0.9:1"}, api.CodeConflict},
		"warm without port": {WarmInstance{ID: "p1"}, api.CodeInvalid},
		"warm unknown":      {WarmInstance{ID: "x", Address: "10.0.0.9:1"}, api.CodeNotFound},
		"fail outdated":     {FailInstance{ID: "w1", Revision: 1}, api.CodeConflict},
		"end outdated":      {EndInstance{ID: "w1", Revision: 9}, api.CodeConflict},
		"end unknown":       {EndInstance{ID: "x", Revision: 1}, api.CodeNotFound},
		"remove warm":       {RemoveInstance{ID: "w1"}, api.CodeConflict},
		"remove unknown":    {RemoveInstance{ID: "x"}, api.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) { w.t = t; w.refused(c.command, c.code) })
	}
	w.t = t
	if got, want := w.v.TemplateCounts("shop"), (Counts{Pending: 1, Warm: 2}); got != want {
		t.Errorf("TemplateCounts = %+v, want %+v", got, want)
	}
	w.must(EndInstance{ID: "w1", Revision: 2, Reason: "too many"})
	w.refused(EndInstance{ID: "w1", Revision: 3}, api.CodeConflict)
	w.refused(FailInstance{ID: "w1", Revision: 3}, api.CodeConflict)
	w.must(FailInstance{ID: "p1", Revision: 1, Reason: "no disk"})
	if got, want := w.v.NodeCounts("n1"), (Counts{Ending: 1, Failed: 1}); got != want {
		t.Errorf("NodeCounts = %+v, want %+v", got, want)
	}
	w.must(RemoveInstance{ID: "w1"})
	w.must(RemoveInstance{ID: "p1"})
	if got := w.v.NodeCounts("n1"); got.Total() != 0 {
		t.Errorf("NodeCounts = %+v, want none", got)
	}
	w.must(CreateInstance{ID: "new", Template: ref, Node: "n1", Host: "d-w1"}) // the host is free again
	if i, ok := w.v.InstanceByHost("d-w1"); !ok || i.ID != "new" {
		t.Errorf("InstanceByHost = %v, %t, want instance new", i, ok)
	}
}

func TestClaim(t *testing.T) {
	w := newWorld(t)
	r := w.must(claim("l1", w.instance("w1")))
	want := &Lease{
		ID: "l1", Template: api.TemplateRef{Name: "shop", Revision: 1}, Instance: "w1", Host: "d-w1",
		State: api.DemoActive, Epoch: 1, Revision: 1,
		CreatedAt: epoch, ExpiresAt: epoch.Add(time.Minute), LatestExpiry: epoch.Add(time.Hour),
	}
	if diff := cmp.Diff(r.Lease, want); diff != "" {
		t.Errorf("lease (-got +want):\n%s", diff)
	}
	if r.Instance.State != api.InstanceLeased || r.Instance.Lease != "l1" || r.Instance.Revision != 3 {
		t.Errorf("instance = %+v, want leased by l1 in revision 3", r.Instance)
	}
	w.refused(claim("l2", r.Instance), api.CodeConflict)                                     // leased
	w.refused(ClaimLease{Lease: "l2", Instance: "x", TTL: 1, MaxTTL: 1}, api.CodeNotFound)   // unknown
	w.refused(claim("l1", w.instance("w2")), api.CodeConflict)                               // lease ID taken
	w.refused(claim("", w.instance("w2")), api.CodeInvalid)                                  // no lease ID
	w.refused(ClaimLease{Lease: "l2", Instance: "w2", InstanceRevision: 2}, api.CodeInvalid) // no TTL
	w.refused(ClaimLease{Lease: "l2", Instance: "w2", InstanceRevision: 2, TTL: 2, MaxTTL: 1}, api.CodeInvalid)
	w.refused(ClaimLease{Lease: "l2", Instance: "w2", InstanceRevision: 1, TTL: 1, MaxTTL: 1}, api.CodeConflict)
	w.refused(EndInstance{ID: "w1", Revision: 3}, api.CodeConflict)
}

func TestIdempotencyKey(t *testing.T) {
	w := newWorld(t)
	first := claim("l1", w.instance("w1"))
	first.IdempotencyKey, first.Fingerprint = "k", "f"
	w.must(first)

	again := claim("l2", w.instance("w2"))
	again.IdempotencyKey, again.Fingerprint = "k", "f"
	if r := w.must(again); !r.Replayed || r.Lease.ID != "l1" || r.Instance.ID != "w1" {
		t.Errorf("a repeated claim gave %+v, want l1 again", r)
	}
	w.wantState("w2", api.InstanceWarm)

	other := again
	other.Fingerprint = "g"
	w.refused(other, api.CodeConflict)

	w.must(ReleaseLease{Lease: "l1", Revision: 1})
	if r := w.must(again); !r.Replayed || r.Lease.State != api.DemoReleased {
		t.Errorf("a repeated claim gave %+v, want the released l1", r)
	}
	w.at = w.at.Add(claimKept - time.Second)
	w.must(Collect{EndedBefore: w.at, Limit: 10})
	w.refused(again, api.CodeNotFound) // the lease is forgotten, the key is not

	w.at = w.at.Add(time.Second)
	if r := w.must(again); r.Replayed || r.Lease.ID != "l2" { // the key is over, even if not collected
		t.Errorf("a claim with a key that is over gave %+v, want l2", r)
	}
}

func TestRenew(t *testing.T) {
	w := newWorld(t)
	w.lease("l1", "w1")
	r := w.must(RenewLease{Lease: "l1", Revision: 1, ExpiresAt: epoch.Add(30 * time.Minute)})
	if got, want := r.Lease.ExpiresAt, epoch.Add(30*time.Minute); !got.Equal(want) || r.Lease.Revision != 2 {
		t.Errorf("lease = %+v, want revision 2 until %s", r.Lease, want)
	}
	w.refused(RenewLease{Lease: "l1", Revision: 1, ExpiresAt: epoch.Add(time.Minute)}, api.CodeConflict)
	w.refused(RenewLease{Lease: "x", Revision: 1, ExpiresAt: epoch.Add(time.Minute)}, api.CodeNotFound)
	w.refused(RenewLease{Lease: "l1", Revision: 2, ExpiresAt: epoch}, api.CodeInvalid)
	r = w.must(RenewLease{Lease: "l1", Revision: 2, ExpiresAt: epoch.Add(2 * time.Hour)})
	if got, want := r.Lease.ExpiresAt, epoch.Add(time.Hour); !got.Equal(want) {
		t.Errorf("renewed until %s, want no further than %s", got, want)
	}
	w.at = epoch.Add(time.Hour)
	w.refused(RenewLease{Lease: "l1", Revision: 3, ExpiresAt: epoch.Add(2 * time.Hour)}, api.CodeConflict)
}

func TestRenewalBeatsExpiry(t *testing.T) {
	w := newWorld(t)
	w.lease("l1", "w1")
	w.lease("l2", "w2")
	w.at = epoch.Add(time.Minute)
	seen := ExpireLeases{Leases: []LeaseRevision{{"l1", 1}, {"l2", 1}, {"x", 1}}}
	w.must(RenewLease{Lease: "l1", Revision: 1, ExpiresAt: epoch.Add(2 * time.Minute)})
	w.must(seen)
	if l, _ := w.v.Lease("l1"); l.State != api.DemoActive {
		t.Errorf("l1 is %s although it was renewed first", l.State)
	}
	if l, _ := w.v.Lease("l2"); l.State != api.DemoExpired || !l.EndedAt.Equal(w.at) {
		t.Errorf("l2 = %+v, want expired at %s", l, w.at)
	}
	w.wantState("w1", api.InstanceLeased)
	w.wantState("w2", api.InstanceEnding)
	w.must(ExpireLeases{Leases: []LeaseRevision{{"l1", 2}}}) // not over yet
	w.wantState("w1", api.InstanceLeased)
	if got := w.v.ActiveLeases(); got != 1 {
		t.Errorf("ActiveLeases() = %d, want 1", got)
	}
}

func TestRelease(t *testing.T) {
	w := newWorld(t)
	w.lease("l1", "w1")
	w.refused(ReleaseLease{Lease: "l1", Revision: 2}, api.CodeConflict)
	w.must(ReleaseLease{Lease: "l1", Revision: 1})
	w.wantState("w1", api.InstanceEnding)
	w.refused(ReleaseLease{Lease: "l1", Revision: 2}, api.CodeConflict)
	w.refused(RenewLease{Lease: "l1", Revision: 2, ExpiresAt: epoch.Add(time.Hour)}, api.CodeConflict)
}

func TestRebind(t *testing.T) {
	w := newWorld(t)
	w.lease("l1", "w1")
	w.must(SetNodeStatus{Node: "n1", Status: api.NodeDown})
	r := w.must(RebindLease{Lease: "l1", Revision: 1, Instance: "w2", InstanceRevision: 2})
	if l := r.Lease; l.Epoch != 2 || l.Revision != 2 || l.Instance != "w2" || l.Host != "d-w1" {
		t.Errorf("lease = %+v, want epoch 2 on w2 under the same host", l)
	}
	w.wantState("w1", api.InstanceEnding)
	w.wantState("w2", api.InstanceLeased)
	w.refused(RebindLease{Lease: "l1", Revision: 2, Instance: "w2", InstanceRevision: 3}, api.CodeConflict)
	w.refused(RebindLease{Lease: "l1", Revision: 1, Instance: "w2", InstanceRevision: 3}, api.CodeConflict)

	w.must(PutTemplate{Spec: api.Template{Name: "other", Image: "img", Port: 80}})
	w.must(CreateInstance{ID: "o1", Template: api.TemplateRef{Name: "other", Revision: 1}, Node: "n2", Host: "d-o1"})
	w.must(WarmInstance{ID: "o1", Address: "10.0.0.2:4001"})
	w.refused(RebindLease{Lease: "l1", Revision: 2, Instance: "o1", InstanceRevision: 2}, api.CodeConflict)
}

func TestFailedInstanceOfLease(t *testing.T) {
	w := newWorld(t)
	w.lease("l1", "w1")
	w.refused(LoseLease{Lease: "l1", Revision: 1}, api.CodeConflict) // it still serves
	w.must(FailInstance{ID: "w1", Revision: 3, Reason: "killed"})
	if l, _ := w.v.Lease("l1"); l.State != api.DemoActive || l.Revision != 1 {
		t.Errorf("lease = %+v, want active and unchanged", l)
	}
	w.must(RemoveInstance{ID: "w1"})
	w.must(RebindLease{Lease: "l1", Revision: 1, Instance: "w2", InstanceRevision: 2})
	w.must(FailInstance{ID: "w2", Revision: 3})
	r := w.must(LoseLease{Lease: "l1", Revision: 2})
	if r.Lease.State != api.DemoLost {
		t.Errorf("lease is %s, want lost", r.Lease.State)
	}
	w.wantState("w2", api.InstanceFailed)
	w.refused(LoseLease{Lease: "l1", Revision: 3}, api.CodeConflict)
}

func TestLoseLeaseOfDownNode(t *testing.T) {
	w := newWorld(t)
	w.lease("l1", "w1")
	w.must(SetNodeStatus{Node: "n1", Status: api.NodeDown})
	w.must(LoseLease{Lease: "l1", Revision: 1})
	w.wantState("w1", api.InstanceEnding)
}

func TestGrantGrace(t *testing.T) {
	w := newWorld(t)
	w.lease("l1", "w1")
	w.at = epoch.Add(59 * time.Minute)
	w.lease("l2", "w2")
	w.at = epoch.Add(time.Hour + time.Second) // l1 could not be extended any more
	w.must(GrantGrace{Grace: api.Duration(10 * time.Second)})
	l1, _ := w.v.Lease("l1")
	if want := w.at.Add(10 * time.Second); !l1.ExpiresAt.Equal(want) || !l1.LatestExpiry.Equal(want) || l1.Revision != 2 {
		t.Errorf("l1 = %+v, want a grace until %s", l1, want)
	}
	l2, _ := w.v.Lease("l2")
	if !l2.ExpiresAt.Equal(w.at.Add(10*time.Second)) || l2.Revision != 2 {
		t.Errorf("l2 = %+v, want 10s from now on", l2)
	}
	w.must(GrantGrace{Grace: api.Duration(time.Second)})
	if l, _ := w.v.Lease("l2"); l != l2 {
		t.Errorf("a lease with enough left was changed: %+v", l)
	}
	w.refused(GrantGrace{Grace: -1}, api.CodeInvalid)
	w.refused(GrantGrace{Grace: api.Duration(longestLease + 1)}, api.CodeInvalid)
}

func TestCollect(t *testing.T) {
	w := newWorld(t)
	for n, id := range []api.InstanceID{"w1", "w2"} {
		c := claim(api.LeaseID("l-"+id), w.instance(id))
		c.IdempotencyKey = "k-" + string(id)
		w.must(c)
		w.must(ReleaseLease{Lease: c.Lease, Revision: 1})
		w.at = w.at.Add(time.Duration(n+1) * time.Minute)
	}
	w.refused(Collect{EndedBefore: w.at}, api.CodeInvalid)
	w.must(Collect{EndedBefore: epoch, Limit: 10})
	w.must(Collect{EndedBefore: w.at, Limit: 1})
	if _, ok := w.v.Lease("l-w1"); ok {
		t.Error("l-w1, the first to end, was not collected")
	}
	if _, ok := w.v.Lease("l-w2"); !ok {
		t.Error("l-w2 was collected beyond the limit")
	}
	w.at = epoch.Add(claimKept)
	w.must(Collect{EndedBefore: w.at, Limit: 10})
	if _, ok := w.v.Claim("k-w1"); ok {
		t.Error("a key that is over was not collected")
	}
	if _, ok := w.v.Claim("k-w2"); !ok {
		t.Error("a key that is not over was collected")
	}
}

func TestClusterVersion(t *testing.T) {
	w := newWorld(t)
	w.must(SetClusterVersion{Version: 2})
	w.must(SetClusterVersion{Version: 2})
	w.refused(SetClusterVersion{Version: 1}, api.CodeConflict)
	if got := w.v.ClusterVersion(); got != 2 {
		t.Errorf("ClusterVersion() = %d, want 2", got)
	}
	if !w.v.Permits(KindClaimLease) || w.v.Permits(9999) {
		t.Error("Permits must allow the first commands and no unknown one")
	}
}
