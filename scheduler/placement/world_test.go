package placement_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// world is a view that a test builds command by command.
type world struct {
	t  testing.TB
	v  *state.View
	at time.Time
	n  int
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, v: state.New(), at: epoch}
	w.template("shop", 80)
	return w
}

func (w *world) must(c state.Command) state.Result {
	w.t.Helper()
	v, r := state.Apply(w.v, w.at, c)
	if r.Refusal != nil {
		w.t.Fatalf("%+v refused: %v", c, r.Refusal)
	}
	w.v = v
	return r
}

// template puts a template; another port makes another revision.
func (w *world) template(name api.TemplateName, port int) *state.Template {
	return w.must(state.PutTemplate{Spec: api.Template{Name: name, Image: "img", Port: port}}).Template
}

func (w *world) shop() *state.Template {
	t, _ := w.v.Template("shop")
	return t
}

func (w *world) node(id api.NodeID, capacity int, restores bool) {
	w.must(state.PutNode{Node: state.Node{ID: id, HostClass: "x86", Capacity: capacity, Restores: restores}})
}

func (w *world) down(id api.NodeID) {
	w.must(state.SetNodeStatus{Node: id, Status: api.NodeDown, Reason: "silent"})
}

// pending starts an instance of the current revision on a node.
func (w *world) pending(name api.TemplateName, node api.NodeID) api.InstanceID {
	w.t.Helper()
	w.n++
	t, _ := w.v.Template(name)
	id := api.InstanceID(fmt.Sprintf("i-%05d", w.n))
	w.must(state.CreateInstance{ID: id, Template: t.Ref(), Node: node, Host: fmt.Sprintf("d-%d", w.n)})
	return id
}

func (w *world) warm(name api.TemplateName, node api.NodeID) api.InstanceID {
	w.t.Helper()
	id := w.pending(name, node)
	w.at = w.at.Add(time.Second)
	w.must(state.WarmInstance{ID: id, Address: "10.0.0.1:4000"})
	return id
}

func (w *world) lease(id api.InstanceID) {
	w.t.Helper()
	i, _ := w.v.Instance(id)
	w.must(state.ClaimLease{
		Lease: api.LeaseID("l-" + string(id)), Instance: id, InstanceRevision: i.Revision,
		TTL: api.Duration(time.Minute), MaxTTL: api.Duration(time.Hour),
	})
}

// build brings the build of the current checkpoint to a state.
func (w *world) build(s api.CheckpointState, builder api.NodeID, digest api.Digest) {
	w.t.Helper()
	key := state.CheckpointKey{Template: w.shop().Ref(), HostClass: "x86"}
	w.must(state.StartBuild{Key: key, Builder: builder, Attempt: 1})
	if s != api.CheckpointBuilding {
		w.must(state.FinishBuild{Key: key, Attempt: 1, Digest: digest, Reason: "it fell over"})
	}
}

// randomWorld has nodes up and down, two templates, two revisions and
// instances in many states.
func randomWorld(t testing.TB, r *rand.Rand) *world {
	w := newWorld(t)
	w.template("other", 80)
	nodes := 1 + r.IntN(6)
	id := func() api.NodeID { return api.NodeID(fmt.Sprintf("n%d", r.IntN(nodes))) }
	for n := range nodes {
		w.node(api.NodeID(fmt.Sprintf("n%d", n)), 1+r.IntN(20), r.IntN(3) > 0)
	}
	if r.IntN(2) == 0 {
		s := []api.CheckpointState{api.CheckpointBuilding, api.CheckpointReady, api.CheckpointFailed}[r.IntN(3)]
		digest := api.Digest("")
		if s == api.CheckpointReady {
			digest = "abc"
		}
		w.build(s, id(), digest)
	}
	for range r.IntN(80) {
		name := []api.TemplateName{"shop", "other"}[r.IntN(2)]
		switch r.IntN(5) {
		case 0:
			w.pending(name, id())
		case 1:
			w.lease(w.warm(name, id()))
		default:
			w.warm(name, id())
		}
		if r.IntN(40) == 0 {
			w.template("shop", 80+r.IntN(10))
		}
	}
	for n := range nodes {
		if r.IntN(4) == 0 {
			w.down(api.NodeID(fmt.Sprintf("n%d", n)))
		}
	}
	return w
}
