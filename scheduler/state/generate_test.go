package state

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// generator invents a plausible log: mostly commands that fit the view, some
// that come too late, some that make no sense.
type generator struct {
	r  *rand.Rand
	at time.Time
	n  int
}

func newGenerator(seed uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, seed)), at: epoch}
}

func pick[T any](g *generator, rows iter.Seq[*T]) *T {
	var chosen *T
	seen := 0
	for row := range rows {
		if seen++; g.r.IntN(seen) == 0 {
			chosen = row
		}
	}
	if chosen == nil {
		return new(T)
	}
	return chosen
}

func (g *generator) id(prefix string) string {
	g.n++
	return fmt.Sprintf("%s%06d", prefix, g.n)
}

// revision is mostly the true one.
func (g *generator) revision(r uint64) uint64 {
	if g.r.IntN(10) == 0 {
		return r + 1
	}
	return r
}

func (g *generator) next(v *View) Envelope {
	g.at = g.at.Add(time.Duration(g.r.IntN(10_000)-2_000) * time.Millisecond) // sometimes back
	return Envelope{At: g.at, Command: g.command(v)}
}

func (g *generator) command(v *View) Command {
	switch n := g.r.IntN(100); {
	case n < 20:
		node, tpl := pick(g, v.Nodes()), pick(g, v.Templates())
		return CreateInstance{ID: api.InstanceID(g.id("i-")), Template: tpl.Ref(), Node: node.ID, Host: g.id("d-"), Checkpoint: "c1"}
	case n < 36:
		i := pick(g, v.InstancesOf(pick(g, v.Templates()).Spec.Name, api.InstancePending))
		return WarmInstance{ID: i.ID, Address: "10.0.0.1:4000", Credentials: &api.Credentials{Username: "admin", Password: g.id("p")}}
	case n < 52:
		return g.claim(v)
	case n < 58:
		l := pick(g, v.LeasesByExpiry())
		return RenewLease{Lease: l.ID, Revision: g.revision(l.Revision), ExpiresAt: g.at.Add(time.Duration(g.r.IntN(100)) * time.Second)}
	case n < 61:
		l := pick(g, v.LeasesByExpiry())
		return ReleaseLease{Lease: l.ID, Revision: g.revision(l.Revision)}
	case n < 65:
		l, m := pick(g, v.LeasesByExpiry()), pick(g, v.Leases())
		return ExpireLeases{Leases: []LeaseRevision{{l.ID, g.revision(l.Revision)}, {m.ID, m.Revision}}}
	case n < 69:
		l := pick(g, v.LeasesByExpiry())
		i := pick(g, v.InstancesOf(l.Template.Name, api.InstanceWarm))
		return RebindLease{Lease: l.ID, Revision: l.Revision, Instance: i.ID, InstanceRevision: g.revision(i.Revision)}
	case n < 71:
		l := pick(g, v.Leases())
		return LoseLease{Lease: l.ID, Revision: l.Revision}
	case n < 76:
		i := pick(g, v.Instances())
		return FailInstance{ID: i.ID, Revision: g.revision(i.Revision), Reason: "it broke"}
	case n < 80:
		i := pick(g, v.Instances())
		return EndInstance{ID: i.ID, Revision: g.revision(i.Revision), Reason: "too many"}
	case n < 85:
		i := pick(g, v.Instances())
		return RemoveInstance{ID: i.ID}
	default:
		return g.rare(v, n)
	}
}

func (g *generator) claim(v *View) Command {
	tpl := pick(g, v.Templates())
	i := pick(g, v.InstancesOf(tpl.Spec.Name, api.InstanceWarm))
	c := ClaimLease{
		Lease: api.LeaseID(g.id("l")), Instance: i.ID, InstanceRevision: g.revision(i.Revision),
		TTL: api.Duration(time.Minute), MaxTTL: api.Duration(time.Hour),
	}
	if g.r.IntN(2) == 0 {
		c.IdempotencyKey, c.Fingerprint = fmt.Sprintf("key%d", g.r.IntN(200)), fmt.Sprintf("f%d", g.r.IntN(2))
	}
	return c
}

func (g *generator) rare(v *View, n int) Command {
	node, tpl := pick(g, v.Nodes()), pick(g, v.Templates())
	key := CheckpointKey{Template: tpl.Ref(), HostClass: "x86"}
	switch {
	case n < 87:
		return PutTemplate{Spec: api.Template{Name: api.TemplateName(fmt.Sprintf("shop%d", g.r.IntN(3))), Image: "img", Port: 80 + g.r.IntN(2)}}
	case n < 90:
		return PutNode{Node: Node{ID: api.NodeID(fmt.Sprintf("n%d", g.r.IntN(4))), HostClass: "x86", Capacity: 10 + g.r.IntN(2)}}
	case n < 91:
		return SetNodeStatus{Node: node.ID, Status: api.NodeDown, Reason: "silent"}
	case n < 93:
		old, _ := v.Checkpoint(key)
		if old == nil {
			old = &Checkpoint{}
		}
		return StartBuild{Key: key, Builder: node.ID, Attempt: old.Attempt + 1}
	case n < 95:
		k := pick(g, v.Checkpoints())
		digests := []api.Digest{"", "c1", "c2"}
		return FinishBuild{Key: k.Key, Attempt: g.revision(k.Attempt), Digest: digests[g.r.IntN(3)], Size: 1 << 20, Reason: "no CRIU"}
	case n < 96:
		return RemoveCheckpoint{Key: pick(g, v.Checkpoints()).Key}
	case n < 97:
		return GrantGrace{Grace: api.Duration(10 * time.Second)}
	case n < 99:
		return Collect{EndedBefore: g.at.Add(-time.Minute), Limit: 1 + g.r.IntN(5)}
	default:
		return SetClusterVersion{Version: uint32(g.r.IntN(4))}
	}
}

// randomLog returns n commands, and what one replica makes of them.
func randomLog(t testing.TB, seed uint64, n int) ([]Envelope, *View) {
	t.Helper()
	t.Logf("seed %d", seed)
	g, v := newGenerator(seed), New()
	log := make([]Envelope, n)
	applied := 0
	for i := range log {
		log[i] = g.next(v)
		var r Result
		if v, r = Apply(v, log[i].At, log[i].Command); r.Refusal == nil {
			applied++
		}
	}
	if applied < n/4 {
		t.Fatalf("only %d of %d invented commands were applied: the log proves little", applied, n)
	}
	return log, v
}

func snapshot(t testing.TB, v *View) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, v); err != nil {
		t.Fatalf("Write: %v", err)
	}
	return b.Bytes()
}

func restore(t testing.TB, b []byte) *View {
	t.Helper()
	v, err := Read(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return v
}

// pack encodes commands as one log entry.
func pack(t testing.TB, at time.Time, commands ...Command) []byte {
	t.Helper()
	packed := make([]Packed, len(commands))
	for i, c := range commands {
		var err error
		if packed[i], err = Pack(c); err != nil {
			t.Fatalf("Pack(%+v): %v", c, err)
		}
	}
	entry, err := Encode(at, packed)
	if err != nil {
		t.Fatalf("Encode: %v", err)
	}
	return entry
}
