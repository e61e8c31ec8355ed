package reconcile

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// restoring is a cluster of nodes n1 to n6 whose checkpoint n1 has built.
func restoring(t *testing.T) (*sketch, *state.Template) {
	s := newSketch(t)
	for n := 1; n <= 6; n++ {
		s.apply(state.PutNode{Node: state.Node{
			ID: api.NodeID(fmt.Sprintf("n%d", n)), URL: fmt.Sprintf("http://10.0.0.%d:1", n), Address: fmt.Sprintf("10.0.0.%d", n),
			HostClass: "a", Restores: true, Capacity: 10,
		}})
	}
	tmpl := s.template("shop", 1)
	key := state.CheckpointKey{Template: tmpl.Ref(), HostClass: "a"}
	s.apply(state.StartBuild{Key: key, Builder: "n1", Attempt: 1})
	s.apply(state.FinishBuild{Key: key, Attempt: 1, Digest: "abc"})
	return s, tmpl
}

func (s *sketch) content(node api.NodeID, holds map[api.Digest]bool, holders ...api.NodeID) content {
	return renderer{
		v: s.v, node: node, holds: holds,
		holders: func(api.Digest) map[api.NodeID]string {
			urls := map[api.NodeID]string{}
			for _, id := range holders {
				n, _ := s.v.Node(id)
				urls[id] = n.URL
			}
			return urls
		},
		url: func(host string) string { return "http://" + host },
	}.content()
}

func TestSourcesOfCheckpoints(t *testing.T) {
	s, _ := restoring(t)
	sources := func(node api.NodeID, holds map[api.Digest]bool, holders ...api.NodeID) []string {
		c := s.content(node, holds, holders...).desired.Checkpoints
		if len(c) != 1 || c[0].Digest != "abc" {
			t.Fatalf("node %s should hold %+v, want the one checkpoint", node, c)
		}
		return c[0].Sources
	}
	if got, want := sources("n2", nil), []string{"http://10.0.0.1:1"}; !cmp.Equal(got, want) {
		t.Errorf("a new leader names %v, want the builder %v", got, want)
	}
	if got := sources("n2", map[api.Digest]bool{"abc": true}, "n1", "n2"); got != nil {
		t.Errorf("a node that holds it is told to fetch from %v", got)
	}
	got := sources("n2", nil, "n1", "n2", "n3", "n4", "n5", "n6")
	if len(got) != maxSources || got[0] != "http://10.0.0.1:1" {
		t.Errorf("got sources %v, want the builder first and %d in all", got, maxSources)
	}
	s.apply(state.SetNodeStatus{Node: "n1", Status: api.NodeDown})
	if got, want := sources("n2", nil, "n1", "n3"), []string{"http://10.0.0.3:1"}; !cmp.Equal(got, want) {
		t.Errorf("with the builder down: got %v, want %v", got, want)
	}
}

func TestContentNamesWhatShouldBe(t *testing.T) {
	s, tmpl := restoring(t)
	pending, warm := s.create(tmpl, "n2"), s.warm(tmpl, "n2")
	lease := s.leased(tmpl, "n2", time.Hour)
	ending := s.warm(tmpl, "n2")
	s.apply(state.EndInstance{ID: ending.ID, Revision: ending.Revision})
	s.create(tmpl, "n3")
	s.template("shop", 1) // what runs is of the revision before

	c := s.content("n2", nil)
	d := c.at(7, 3, s.now)
	got := map[api.InstanceID]api.InstanceState{}
	for _, i := range d.Instances {
		got[i.ID] = i.State
		if i.State == api.InstanceLeased && (i.Epoch != 1 || i.ExpiresIn.D() < 59*time.Minute || i.ExpiresIn.D() > time.Hour) {
			t.Errorf("leased instance: got epoch %d for %s, want 1 for an hour", i.Epoch, i.ExpiresIn)
		}
		if i.URL != "http://"+i.Host {
			t.Errorf("instance %s has URL %q", i.ID, i.URL)
		}
	}
	want := map[api.InstanceID]api.InstanceState{pending.ID: api.InstanceWarm, warm.ID: api.InstanceWarm, lease.Instance: api.InstanceLeased}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("instances (-want +got): %s", diff)
	}
	if len(d.Templates) != 1 || d.Templates[0].Ref() != tmpl.Ref() || d.Term != 7 || d.Generation != 3 {
		t.Errorf("got templates %v of term %d generation %d, want revision 1 of 7, 3", d.Templates, d.Term, d.Generation)
	}
	if got := c.at(7, 3, s.now.Add(2*time.Hour)); got.Instances[0].ExpiresIn < 0 {
		t.Error("a lease that is over has less than no time")
	}
	if diff := cmp.Diff(c, s.content("n2", nil), cmp.AllowUnexported(content{})); diff != "" {
		t.Errorf("equal input gave two contents: %s", diff)
	}

	s.apply(state.RenewLease{Lease: lease.ID, Revision: 1, ExpiresAt: lease.ExpiresAt.Add(-time.Minute)})
	if cmp.Equal(c, s.content("n2", nil), cmp.AllowUnexported(content{})) {
		t.Error("another end of a lease is no other content, so the agent would take it for a repetition")
	}
}

func TestRoutes(t *testing.T) {
	s, tmpl := restoring(t)
	warm := s.warm(tmpl, "n1")
	lease := s.leased(tmpl, "n2", time.Hour)
	moved := s.leased(tmpl, "n3", time.Hour)
	spare := s.warm(tmpl, "n1")
	s.apply(state.SetNodeStatus{Node: "n3", Status: api.NodeDown})
	s.apply(state.RebindLease{Lease: moved.ID, Revision: 1, Instance: spare.ID, InstanceRevision: spare.Revision})
	over := s.leased(tmpl, "n1", time.Hour)
	s.apply(state.ReleaseLease{Lease: over.ID, Revision: 1})
	s.leased(tmpl, "n4", time.Hour)
	s.apply(state.SetNodeStatus{Node: "n4", Status: api.NodeDown})
	s.create(tmpl, "n1")

	routes, ended := renderRoutes(s.v, s.now.Add(-time.Minute))
	got := map[string]api.InstanceID{}
	for _, r := range routes {
		got[r.Host] = r.Instance
	}
	want := map[string]api.InstanceID{warm.Host: warm.ID, lease.Host: lease.Instance, moved.Host: spare.ID}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got): %s", diff)
	}
	if diff := cmp.Diff([]string{over.Host}, ended); diff != "" {
		t.Errorf("ended (-want +got): %s", diff)
	}
	if _, ended := renderRoutes(s.v, s.now); len(ended) != 0 {
		t.Errorf("got %v as lately ended, want none", ended)
	}
	usable, _, skipped := api.RouteTable{Routes: routes}.Usable()
	if len(usable) != len(routes) || len(skipped) != 0 {
		t.Errorf("edges would leave out %v", skipped)
	}
}
