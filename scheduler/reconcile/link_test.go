package reconcile

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// seen is a node that follows term 7 and shows these instances.
func (s *sketch) seen(generation uint64, instances ...api.ObservedInstance) sighting {
	return sighting{
		node: "n1", url: "http://10.0.0.1:1", address: "10.0.0.1", term: 7, greeted: "b1", unnamed: map[api.InstanceID]uint64{},
		observed: api.Observed{
			Node: api.NodeInfo{ID: "n1", HostClass: "a", Capacity: 100}, Boot: "b1", Term: 7, Generation: generation, Instances: instances,
		},
	}
}

func kindsOf(actions []action) (kinds []state.Kind) {
	for _, a := range actions {
		kinds = append(kinds, a.cmd.Kind())
	}
	return kinds
}

func TestAbsenceCountsOnlyInTheRightGeneration(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 100)
	tmpl := s.template("shop", 1)
	ending := s.warm(tmpl, "n1")
	s.apply(state.EndInstance{ID: ending.ID, Revision: ending.Revision, Reason: "test"})
	s.warm(tmpl, "n1") // absent as well: never removed, nor failed

	for name, c := range map[string]struct {
		change func(*sighting)
		want   []state.Kind
	}{
		"the generation that does not name it": {want: []state.Kind{state.KindRemoveInstance}},
		"a later generation":                   {change: func(g *sighting) { g.observed.Generation = 12 }, want: []state.Kind{state.KindRemoveInstance}},
		"an earlier generation":                {change: func(g *sighting) { g.observed.Generation = 9 }},
		"an earlier term":                      {change: func(g *sighting) { g.observed.Term, g.observed.Generation = 6, 50 }},
		"a process that heard nothing yet":     {change: func(g *sighting) { g.observed.Boot = "b2" }},
		"not known since when it is unnamed":   {change: func(g *sighting) { delete(g.unnamed, ending.ID) }},
		"it is still there": {change: func(g *sighting) {
			g.observed.Instances = []api.ObservedInstance{{ID: ending.ID, State: api.InstanceWarm}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := s.seen(10)
			g.unnamed[ending.ID] = 10
			if c.change != nil {
				c.change(&g)
			}
			if diff := cmp.Diff(c.want, kindsOf(planObserved(s.v, g, s.now))); diff != "" {
				t.Errorf("plan (-want +got): %s", diff)
			}
		})
	}
}

func TestObservedInstances(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 100)
	tmpl := s.template("shop", 1)
	pending, warm := s.create(tmpl, "n1"), s.warm(tmpl, "n1")
	lease := s.leased(tmpl, "n1", time.Hour)
	for name, c := range map[string]struct {
		seen api.ObservedInstance
		late time.Duration
		want []state.Kind
	}{
		"pending restores":         {seen: api.ObservedInstance{ID: pending.ID, State: api.InstanceRestoring}},
		"pending is warm":          {seen: api.ObservedInstance{ID: pending.ID, State: api.InstanceWarm, Port: 8080}, want: []state.Kind{state.KindWarmInstance}},
		"pending without a port":   {seen: api.ObservedInstance{ID: pending.ID, State: api.InstanceWarm}},
		"pending failed":           {seen: api.ObservedInstance{ID: pending.ID, State: api.InstanceFailed}, want: []state.Kind{state.KindFailInstance}},
		"pending for too long":     {late: 11 * time.Minute, want: []state.Kind{state.KindFailInstance}},
		"warm as it was":           {seen: api.ObservedInstance{ID: warm.ID, State: api.InstanceWarm, Port: 8080}},
		"warm died":                {seen: api.ObservedInstance{ID: warm.ID, State: api.InstanceFailed}, want: []state.Kind{state.KindFailInstance}},
		"warm is started anew":     {seen: api.ObservedInstance{ID: warm.ID, State: api.InstanceRestoring}, want: []state.Kind{state.KindFailInstance}},
		"leased not heard of yet":  {seen: api.ObservedInstance{ID: lease.Instance, State: api.InstanceWarm, Port: 8080}},
		"leased died":              {seen: api.ObservedInstance{ID: lease.Instance, State: api.InstanceFailed}, want: []state.Kind{state.KindFailInstance}},
		"leased is started anew":   {seen: api.ObservedInstance{ID: lease.Instance, State: api.InstanceRestoring}, want: []state.Kind{state.KindFailInstance}},
		"somebody else's instance": {seen: api.ObservedInstance{ID: "i-unknown", State: api.InstanceFailed}},
	} {
		t.Run(name, func(t *testing.T) {
			g := s.seen(10, c.seen)
			actions := planObserved(s.v, g, s.now.Add(c.late))
			if diff := cmp.Diff(c.want, kindsOf(actions)); diff != "" {
				t.Fatalf("plan (-want +got): %s", diff)
			}
			after := *s
			after.execute(actions)
			if again := planObserved(after.v, g, s.now.Add(c.late)); len(again) != 0 {
				t.Errorf("a second plan is %v, want none", kindsOf(again))
			}
		})
	}
}

func TestFailedInstanceStaysOnRecordForItsLease(t *testing.T) {
	s := newSketch(t)
	s.node("n1", 100)
	lease := s.leased(s.template("shop", 1), "n1", time.Hour)
	i, _ := s.v.Instance(lease.Instance)
	s.apply(state.FailInstance{ID: i.ID, Revision: i.Revision, Reason: "test"})
	g := s.seen(10)
	g.unnamed[i.ID] = 10
	if got := planObserved(s.v, g, s.now); len(got) != 0 {
		t.Errorf("got %v while the lease has to move, want nothing", kindsOf(got))
	}
	s.apply(state.ReleaseLease{Lease: lease.ID, Revision: lease.Revision})
	if got, want := kindsOf(planObserved(s.v, g, s.now)), []state.Kind{state.KindRemoveInstance}; !cmp.Equal(got, want) {
		t.Errorf("got %v once the lease has ended, want %v", got, want)
	}
}

func TestNodeIsPutOnceItFollows(t *testing.T) {
	s := newSketch(t)
	g := s.seen(1)
	if got, want := kindsOf(planObserved(s.v, g, s.now)), []state.Kind{state.KindPutNode}; !cmp.Equal(got, want) {
		t.Fatalf("a new node: got %v, want %v", got, want)
	}
	s.execute(planObserved(s.v, g, s.now))
	if got := planObserved(s.v, g, s.now); len(got) != 0 {
		t.Errorf("the same again: got %v, want nothing", kindsOf(got))
	}
	s.apply(state.SetNodeStatus{Node: "n1", Status: api.NodeDown, Reason: "test"})
	g.observed.Term = 6
	if got := planObserved(s.v, g, s.now); len(got) != 0 {
		t.Errorf("a node that follows an earlier leader: got %v, want nothing", kindsOf(got))
	}
	g.observed.Term, g.observed.Node.Capacity = 7, 3
	s.execute(planObserved(s.v, g, s.now))
	if n, _ := s.v.Node("n1"); n.Status != api.NodeUp || n.Capacity != 3 || n.Address != "10.0.0.1" {
		t.Errorf("the node on record is %+v, want it up with capacity 3", n)
	}
}

func TestContact(t *testing.T) {
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	refused, silent := fmt.Errorf("%w: test", ErrRefused), errors.New("no answer")
	for name, c := range map[string]struct {
		play    func(c *contact)
		now     time.Duration
		suspect bool
		lost    bool
	}{
		"answers":                   {now: time.Second},
		"failed once":               {play: func(c *contact) { c.failed(silent, at(1)) }, now: time.Second, suspect: true},
		"recovered":                 {play: func(c *contact) { c.failed(silent, at(1)); c.succeeded(at(2)) }, now: time.Second},
		"says nothing":              {now: suspectAfter, suspect: true},
		"silent for the grace":      {now: 5 * time.Second, suspect: true, lost: true},
		"refuses for the grace":     {play: func(c *contact) { c.failed(refused, at(8*time.Second)) }, now: 10 * time.Second, suspect: true},
		"refused, then silent":      {play: func(c *contact) { c.failed(refused, at(8*time.Second)) }, now: 13 * time.Second, suspect: true, lost: true},
		"refuses for a minute":      {play: func(c *contact) { c.failed(refused, at(59*time.Second)) }, now: time.Minute, suspect: true, lost: true},
		"replies that it conflicts": {play: func(c *contact) { c.failed(api.Errorf(api.CodeConflict, "old"), at(8*time.Second)) }, now: 10 * time.Second, suspect: true},
		"replies unavailable":       {play: func(c *contact) { c.failed(api.Errorf(api.CodeUnavailable, "busy"), at(8*time.Second)) }, now: 10 * time.Second, suspect: true},
		"unreachable": {play: func(c *contact) { c.failed(api.Errorf(api.CodeUnavailable, "dial: %w", silent), at(8*time.Second)) },
			now: 10 * time.Second, suspect: true, lost: true},
		"this process stood still": {play: func(c *contact) { c.excuse(9 * time.Second) }, now: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			k := contact{heard: epoch}
			if c.play != nil {
				c.play(&k)
			}
			if got := k.suspect(at(c.now)); got != c.suspect {
				t.Errorf("suspect: got %v, want %v", got, c.suspect)
			}
			if got := k.lost(at(c.now), 5*time.Second); (got != "") != c.lost {
				t.Errorf("lost: got %q, want a reason: %v", got, c.lost)
			}
		})
	}
}
