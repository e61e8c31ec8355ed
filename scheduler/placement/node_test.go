package placement_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/placement"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// TestPickNodeProperties checks what must hold in any view.
func TestPickNodeProperties(t *testing.T) {
	const maxPending = 3
	picked := 0
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := randomWorld(t, r)
		loads := map[api.NodeID]placement.NodeLoad{}
		for n := range w.v.Nodes() {
			loads[n.ID] = placement.NodeLoad{
				Pending: w.v.NodeCounts(n.ID).Pending + r.IntN(2), SetAside: r.IntN(5) == 0, Suspect: r.IntN(5) == 0,
				Holds: map[api.Digest]bool{"abc": r.IntN(2) == 0},
			}
		}
		load := func(id api.NodeID) placement.NodeLoad { return loads[id] }
		got, why := placement.PickNode(w.v, w.shop(), load, maxPending)
		if again, _ := placement.PickNode(w.v, w.shop(), load, maxPending); again != got {
			t.Errorf("seed %d: two calls picked %v and %v", seed, got, again)
		}
		if got.Node == "" {
			if why == "" {
				t.Errorf("seed %d: nowhere, without a reason", seed)
			}
			continue
		}
		picked++
		n, _ := w.v.Node(got.Node)
		l := loads[n.ID]
		if n.Status != api.NodeUp || l.SetAside || l.Suspect || l.Pending >= maxPending || w.v.NodeCounts(n.ID).Total() >= n.Capacity {
			t.Errorf("seed %d: picked %+v with load %+v and %+v", seed, n, l, w.v.NodeCounts(n.ID))
		}
		c, known := w.v.Checkpoint(state.CheckpointKey{Template: w.shop().Ref(), HostClass: n.HostClass})
		switch {
		case why != "":
			t.Errorf("seed %d: picked %s and gave a reason: %s", seed, got.Node, why)
		case got.Checkpoint == "" && n.Restores && (!known || c.State != api.CheckpointFailed):
			t.Errorf("seed %d: a cold boot on a node that could restore: %+v", seed, c)
		case got.Checkpoint != "" && (!n.Restores || c.State != api.CheckpointReady || c.Digest != got.Checkpoint):
			t.Errorf("seed %d: restores %q on %+v from %+v", seed, got.Checkpoint, n, c)
		}
	}
	if picked < 50 {
		t.Errorf("only %d of the random views had a usable node; the test shows little", picked)
	}
}

// TestPickNodeSpreads fills equal nodes: their counts never part by more than
// one, whoever holds the checkpoint.
func TestPickNodeSpreads(t *testing.T) {
	w := newWorld(t)
	const nodes, capacity = 5, 7
	for n := range nodes {
		w.node(api.NodeID(fmt.Sprintf("n%d", n)), capacity, true)
	}
	w.build(api.CheckpointReady, "n3", "abc")
	load := func(id api.NodeID) placement.NodeLoad {
		return placement.NodeLoad{Holds: map[api.Digest]bool{"abc": id == "n3"}}
	}
	for range nodes * capacity {
		got, why := placement.PickNode(w.v, w.shop(), load, 1)
		if got.Node == "" {
			t.Fatalf("nowhere after %d instances: %s", w.n, why)
		}
		if w.n == 0 && got.Node != "n3" {
			t.Errorf("the first instance goes to %s, want n3, which holds the checkpoint", got.Node)
		}
		w.warm("shop", got.Node)
		low, high := capacity, 0
		for n := range w.v.Nodes() {
			c := w.v.NodeCounts(n.ID).Total()
			low, high = min(low, c), max(high, c)
		}
		if high-low > 1 {
			t.Fatalf("after %d instances one node has %d and another %d", w.n, low, high)
		}
	}
	got, why := placement.PickNode(w.v, w.shop(), load, 1)
	if want := "of 5, 5 full"; got.Node != "" || !strings.Contains(why, want) {
		t.Errorf("full nodes: picked %+v, because %q, want nowhere, because %q", got, why, want)
	}
}

// TestPickNodePrefersEmptier compares by ratio of load, not by number.
func TestPickNodePrefersEmptier(t *testing.T) {
	w := newWorld(t)
	w.template("other", 80)
	w.node("big", 100, false)
	w.node("small", 4, false)
	for range 3 {
		w.warm("other", "big")
	}
	w.warm("other", "small")
	got, _ := placement.PickNode(w.v, w.shop(), func(api.NodeID) placement.NodeLoad { return placement.NodeLoad{} }, 1)
	if want := (placement.Target{Node: "big"}); got != want {
		t.Errorf("picked %+v, want %+v", got, want)
	}
}

// TestPickNodeCheckpoint goes through every state of a checkpoint.
func TestPickNodeCheckpoint(t *testing.T) {
	nowhere := placement.Target{}
	cases := []struct {
		name     string
		restores bool
		build    api.CheckpointState
		want     placement.Target
		why      string
	}{
		{"ready", true, api.CheckpointReady, placement.Target{Node: "n1", Checkpoint: "abc"}, ""},
		{"building", true, api.CheckpointBuilding, nowhere, "1 waiting for the checkpoint"},
		{"not begun", true, "", nowhere, "1 waiting for the checkpoint"},
		{"failed", true, api.CheckpointFailed, placement.Target{Node: "n1"}, ""},
		{"cannot restore, ready", false, api.CheckpointReady, placement.Target{Node: "n1"}, ""},
		{"cannot restore, not begun", false, "", placement.Target{Node: "n1"}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.node("n1", 5, c.restores)
			switch c.build {
			case "":
			case api.CheckpointReady:
				w.build(c.build, "n1", "abc")
			default:
				w.build(c.build, "n1", "")
			}
			got, why := placement.PickNode(w.v, w.shop(), func(api.NodeID) placement.NodeLoad { return placement.NodeLoad{} }, 1)
			if got != c.want || !strings.Contains(why, c.why) {
				t.Errorf("picked %+v, because %q, want %+v, because %q", got, why, c.want, c.why)
			}
		})
	}
}

// TestPickNodeWhy reads the reason that operators see.
func TestPickNodeWhy(t *testing.T) {
	w := newWorld(t)
	loads := map[api.NodeID]placement.NodeLoad{
		"n2": {Suspect: true}, "n3": {SetAside: true}, "n4": {Pending: 2}, "n5": {Pending: 1},
	}
	load := func(id api.NodeID) placement.NodeLoad { return loads[id] }
	if _, why := placement.PickNode(w.v, w.shop(), load, 2); why != "no node has joined the cluster yet" {
		t.Errorf("without nodes: %q", why)
	}
	for _, id := range []api.NodeID{"n1", "n2", "n3", "n4"} {
		w.node(id, 5, false)
	}
	w.node("n5", 1, false) // full, once what the view does not show yet is there
	w.down("n1")
	got, why := placement.PickNode(w.v, w.shop(), load, 2)
	want := "no node can start an instance: of 5, 1 down, 1 out of reach right now, 1 set aside after failures, 1 full, 1 starting as many instances as allowed at once"
	if got.Node != "" || why != want {
		t.Errorf("picked %+v, because\n%q, want\n%q", got, why, want)
	}
}
