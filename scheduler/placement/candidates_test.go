package placement_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/placement"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func ids(is []*state.Instance) []api.InstanceID {
	out := []api.InstanceID{}
	for _, i := range is {
		out = append(out, i.ID)
	}
	return out
}

// TestCandidatesProperties checks what must hold in any view.
func TestCandidatesProperties(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := randomWorld(t, r)
		limit := r.IntN(12) - 1
		left := map[api.InstanceID]bool{}
		for i := range w.v.Instances() {
			left[i.ID] = r.IntN(4) == 0
		}
		skip := func(i *state.Instance) bool { return left[i.ID] }
		got := placement.Candidates(w.v, "shop", limit, skip)
		if len(got) > max(0, limit) {
			t.Fatalf("seed %d: %d candidates, the limit is %d", seed, len(got), limit)
		}
		seen := map[api.InstanceID]bool{}
		usable := 0
		for i := range w.v.InstancesOf("shop", api.InstanceWarm) {
			if n, _ := w.v.Node(i.Node); n.Status == api.NodeUp && !left[i.ID] {
				usable++
			}
		}
		for _, i := range got {
			n, _ := w.v.Node(i.Node)
			switch {
			case i.State != api.InstanceWarm || i.Template.Name != "shop":
				t.Errorf("seed %d: %s is a %s instance of %s", seed, i.ID, i.State, i.Template.Name)
			case left[i.ID]:
				t.Errorf("seed %d: %s was to be left out", seed, i.ID)
			case n.Status != api.NodeUp:
				t.Errorf("seed %d: %s is on node %s, which is %s", seed, i.ID, n.ID, n.Status)
			case seen[i.ID]:
				t.Errorf("seed %d: %s comes twice", seed, i.ID)
			}
			seen[i.ID] = true
		}
		if want := min(max(0, limit), usable); len(got) != want {
			t.Errorf("seed %d: %d candidates of %d usable ones, want %d", seed, len(got), usable, want)
		}
		if diff := cmp.Diff(ids(got), ids(placement.Candidates(w.v, "shop", limit, skip))); diff != "" {
			t.Errorf("seed %d: a second call differs (-first +second):\n%s", seed, diff)
		}
	}
}

func TestCandidatesOrder(t *testing.T) {
	w := newWorld(t)
	w.node("n1", 99, true)
	w.node("n2", 99, true)
	old := w.warm("shop", "n2")
	w.template("shop", 81)
	a, b, c := w.warm("shop", "n1"), w.warm("shop", "n1"), w.warm("shop", "n1")
	d := w.warm("shop", "n2")
	w.lease(w.warm("shop", "n1"))
	w.lease(w.warm("shop", "n2"))
	w.lease(w.warm("shop", "n2"))
	// n1 has one lease and n2 two: the second of n1 is as good as the first of n2.
	want := []api.InstanceID{a, b, d, c, old}
	if diff := cmp.Diff(want, ids(placement.Candidates(w.v, "shop", 9, nil))); diff != "" {
		t.Errorf("Candidates (-want +got):\n%s", diff)
	}
	if got := placement.Candidates(w.v, "cart", 9, nil); len(got) != 0 {
		t.Errorf("an unknown template has candidates %v", ids(got))
	}
}

// TestCandidatesCost counts how many instances are looked at.
func TestCandidatesCost(t *testing.T) {
	w := newWorld(t)
	w.node("n1", 9999, true)
	for range 500 {
		w.warm("shop", "n1")
	}
	for _, skipped := range []int{0, 100} {
		looks := 0
		placement.Candidates(w.v, "shop", 3, func(*state.Instance) bool { looks++; return looks <= skipped })
		if want := skipped + 28; looks > want {
			t.Errorf("with %d skipped ones, %d instances were looked at, want at most %d", skipped, looks, want)
		}
	}
}

func BenchmarkCandidates(b *testing.B) {
	w := newWorld(b)
	for n := range 100 {
		w.node(api.NodeID(fmt.Sprintf("n%02d", n)), 9999, true)
	}
	for i := range 20_000 {
		w.at = w.at.Add(-time.Second + time.Millisecond) // they become warm a millisecond apart
		w.warm("shop", api.NodeID(fmt.Sprintf("n%02d", i%100)))
	}
	for _, limit := range []int{1, 16} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := placement.Candidates(w.v, "shop", limit, nil); len(got) != limit {
					b.Fatalf("%d candidates, want %d", len(got), limit)
				}
			}
		})
	}
}
