package pool

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

// world is a node as a model: actions take effect at once, or fail.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	now     time.Time
	desired Desired
	actual  Actual
	leased  map[api.InstanceID]bool // was ever leased
	epochs  map[api.InstanceID]uint64
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{
		t: t, rng: rand.New(rand.NewPCG(seed, seed)), now: time.Unix(1_700_000_000, 0),
		actual: Actual{
			Restores: seed%4 != 0, Reason: "the trial failed", Capacity: 5,
			Instances: map[api.InstanceID]Instance{}, Checkpoints: map[api.Digest]Checkpoint{}, Builds: map[api.TemplateRef]Build{},
		},
		leased: map[api.InstanceID]bool{}, epochs: map[api.InstanceID]uint64{},
	}
}

// speak is a leader that wants something else: some of a few instances, in
// any state, with checkpoints that may or may not be named.
func (w *world) speak() {
	d := desired(1, w.desired.Generation+1)
	deadlines := map[api.InstanceID]time.Time{}
	for n := range 9 {
		id := api.InstanceID(fmt.Sprintf("i-%d", n))
		switch w.rng.IntN(4) {
		case 0:
			d.Instances = append(d.Instances, warm(id))
		case 1:
			want := restored(id)
			want.Checkpoint = digestOf(byte(w.rng.IntN(3)))
			d.Instances = append(d.Instances, want)
		case 2:
			w.epochs[id] += uint64(w.rng.IntN(2))
			d.Instances = append(d.Instances, leased(id, w.epochs[id], time.Minute))
			deadlines[id] = w.now.Add(time.Duration(w.rng.IntN(120)) * time.Second)
		}
	}
	for n := range byte(3) {
		if w.rng.IntN(2) == 0 {
			d = from(d, digestOf(n))
		}
	}
	if w.rng.IntN(3) == 0 {
		d = building(d, uint64(w.rng.IntN(3)))
	}
	heard := w.desired.Heard
	if heard.IsZero() {
		heard = w.now
	}
	w.desired = Desired{Desired: d, Heard: heard, Deadlines: deadlines}
	for _, want := range d.Instances {
		if i, ok := w.actual.Instances[want.ID]; ok {
			i.Named = true
			w.actual.Instances[want.ID] = i
		}
	}
}

// happen is what nobody planned: containers die, strangers turn up.
func (w *world) happen() {
	switch id := api.InstanceID(fmt.Sprintf("i-%d", w.rng.IntN(9))); w.rng.IntN(3) {
	case 0:
		if i, ok := w.actual.Instances[id]; ok && i.Exists {
			i.State, i.Exists = api.InstanceFailed, w.rng.IntN(2) == 0
			w.actual.Instances[id] = i
		}
	case 1:
		if _, ok := w.actual.Instances[id]; !ok && w.existing() < w.actual.Capacity {
			w.actual.Instances[id] = Instance{ObservedInstance: api.ObservedInstance{ID: id, State: api.InstanceRestoring}, Exists: true}
		}
	}
}

func (w *world) existing() int {
	n := 0
	for _, i := range w.actual.Instances {
		if i.Exists {
			n++
		}
	}
	return n
}

// execute applies one action, which succeeds three times out of four.
func (w *world) execute(a Action) {
	i, works := w.actual.Instances[a.Instance], w.rng.IntN(4) > 0
	switch a.Kind {
	case Remove:
		if i.State = api.InstanceFailed; works {
			i.Exists = false
		} else {
			i.RetryAt = w.now.Add(backoffFirst)
		}
		w.actual.Instances[a.Instance] = i
	case Forget:
		delete(w.actual.Instances, a.Instance)
		delete(w.leased, a.Instance)
	case Lease:
		i.State, i.Epoch = api.InstanceLeased, a.Epoch
		w.actual.Instances[a.Instance] = i
		w.leased[a.Instance] = true
	case Fail:
		w.actual.Instances[a.Instance] = Instance{ObservedInstance: api.ObservedInstance{ID: a.Instance, State: api.InstanceFailed}, Named: true}
	case Start:
		if _, ok := w.actual.Instances[a.Instance]; ok {
			w.t.Errorf("planned the start of %s, which there is a record of", a.Instance)
		}
		i = Instance{ObservedInstance: api.ObservedInstance{ID: a.Instance, State: api.InstanceFailed}, Named: true}
		if works {
			i.State, i.Exists = api.InstanceWarm, true
		}
		w.actual.Instances[a.Instance] = i
	case Fetch:
		c := Checkpoint{State: api.CheckpointReady}
		if !works {
			c = Checkpoint{State: api.CheckpointFailed, RetryAt: w.now.Add(backoffFirst), Sources: []string{"http://10.0.0.2:7070"}}
		}
		w.actual.Checkpoints[a.Digest] = c
	case Discard:
		delete(w.actual.Checkpoints, a.Digest)
	case Make:
		w.actual.Builds[a.Build.Template] = Build{ObservedBuild: api.ObservedBuild{Build: a.Build, State: api.CheckpointReady, Digest: digestOf(1)}}
	case Drop:
		delete(w.actual.Builds, a.Build.Template)
	}
}

// settle executes plans until there is nothing left to do, and returns whether
// that took only a few rounds.
func (w *world) settle() bool {
	for range 10 {
		actions := Plan(w.desired, w.actual, w.now)
		if again := Plan(w.desired, w.actual, w.now); !cmp.Equal(actions, again) {
			w.t.Errorf("equal input gave two plans:\n%s", cmp.Diff(actions, again))
		}
		if len(actions) == 0 {
			return true
		}
		if !slices.IsSortedFunc(actions, func(x, y Action) int { return int(x.Kind) - int(y.Kind) }) {
			w.t.Errorf("a plan is not in the order of its kinds: %v", actions)
		}
		for _, a := range actions {
			w.execute(a)
			w.check()
		}
	}
	return false
}

func (w *world) check() {
	if got := w.existing(); got > w.actual.Capacity {
		w.t.Errorf("containers: got %d, want at most %d", got, w.actual.Capacity)
	}
	for id := range w.leased {
		if w.actual.Instances[id].State == api.InstanceWarm {
			w.t.Errorf("%s was leased and is warm again", id)
		}
	}
}

// checkSettled holds once nothing is left to do.
func (w *world) checkSettled() {
	wanted := map[api.InstanceID]api.DesiredInstance{}
	for _, want := range w.desired.Instances {
		wanted[want.ID] = want
		i, ok := w.actual.Instances[want.ID]
		if !ok && w.existing() < w.actual.Capacity && want.Checkpoint == "" {
			w.t.Errorf("%s is desired, there is room, and there is no trace of it", want.ID)
		}
		if ok && want.State == api.InstanceLeased && i.State == api.InstanceWarm {
			w.t.Errorf("%s is desired as leased and warm", want.ID)
		}
		if ok && i.Exists && i.State == api.InstanceLeased && w.now.After(w.desired.Deadlines[want.ID].Add(leaseSlack)) && want.State == api.InstanceLeased {
			w.t.Errorf("%s is leased and its lease has run out", want.ID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.actual.Instances)) {
		i := w.actual.Instances[id]
		if _, ok := wanted[id]; !ok && (i.Named || w.now.Sub(w.desired.Heard) >= orphanGrace) && !i.RetryAt.After(w.now) {
			w.t.Errorf("%s is not desired and still there: %+v", id, i)
		}
	}
}

func TestPlanProperties(t *testing.T) {
	for seed := range uint64(400) {
		w := newWorld(t, seed)
		for range 25 {
			w.now = w.now.Add(time.Duration(w.rng.IntN(20_000)) * time.Millisecond)
			if w.rng.IntN(2) == 0 {
				w.speak()
			}
			w.happen()
			if !w.settle() {
				t.Errorf("plans never become empty: %v", Plan(w.desired, w.actual, w.now))
			}
			if !w.desired.Heard.IsZero() {
				w.checkSettled()
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// TestPlanIsEmptyOnceUnderWay checks that what a worker is at is not planned
// again.
func TestPlanIsEmptyOnceUnderWay(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := Desired{Desired: building(from(desired(1, 1, warm("i-1"), restored("i-2")), digestOf(1)), 1), Heard: now}
	a := Actual{
		Restores: true, Capacity: 5,
		Instances: map[api.InstanceID]Instance{
			"i-1": {ObservedInstance: api.ObservedInstance{ID: "i-1", State: api.InstanceRestoring}, Exists: true, Busy: true, Named: true},
			"i-9": {ObservedInstance: api.ObservedInstance{ID: "i-9", State: api.InstanceEnding}, Exists: true, Busy: true, Named: true},
		},
		Checkpoints: map[api.Digest]Checkpoint{digestOf(1): {State: api.CheckpointFetching, Busy: true}},
		Builds:      map[api.TemplateRef]Build{revision(1).Ref(): {ObservedBuild: api.ObservedBuild{Build: api.Build{Template: revision(1).Ref(), Attempt: 1}}, Busy: true}},
	}
	if got := Plan(d, a, now); len(got) != 0 {
		t.Errorf("plan: got %v, want nothing", got)
	}
}

func TestPlanBeforeAnyLeader(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	exists := func(id api.InstanceID, s api.InstanceState) Instance {
		return Instance{ObservedInstance: api.ObservedInstance{ID: id, State: s}, Exists: true}
	}
	a := Actual{Restores: true, Capacity: 5, Checkpoints: map[api.Digest]Checkpoint{digestOf(1): {}}, Instances: map[api.InstanceID]Instance{
		"i-1": exists("i-1", api.InstanceWarm), "i-2": exists("i-2", api.InstanceRestoring),
		"i-3": exists("i-3", api.InstanceFailed), "i-4": exists("i-4", api.InstanceLeased),
	}}
	d := Desired{Desired: desired(3, 9, warm("i-7")), Deadlines: map[api.InstanceID]time.Time{"i-4": now.Add(-time.Minute)}}
	want := []Action{ // the dead and the overdue only: nothing is started, fetched or cleared away
		{Kind: Remove, Instance: "i-3"},
		{Kind: Remove, Instance: "i-4", Reason: "its lease ran out on this node's clock"},
	}
	if diff := cmp.Diff(Plan(d, a, now), want); diff != "" {
		t.Errorf("plan (-got +want):\n%s", diff)
	}
}

func TestObstacles(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name       string
		restores   bool
		checkpoint *Checkpoint
		sources    bool
		want       []Action
	}{
		{"a node that does not restore", false, nil, true,
			[]Action{{Kind: Fail, Instance: "i-1", Reason: "this node does not restore: the trial failed"}}},
		{"no source", true, nil, false,
			[]Action{{Kind: Fail, Instance: "i-1", Reason: "checkpoint 000000000000 is not here, and nobody said where to fetch it"}}},
		{"a source", true, nil, true, []Action{{Kind: Fetch, Digest: digestOf(1)}}},
		{"on disk after a restart", true, &Checkpoint{}, true, []Action{{Kind: Fetch, Digest: digestOf(1)}}},
		{"ready", true, &Checkpoint{State: api.CheckpointReady}, true, []Action{{Kind: Start, Instance: "i-1"}}},
		{"failed a moment ago", true, &Checkpoint{State: api.CheckpointFailed, Reason: "disk full", RetryAt: now.Add(time.Second), Sources: []string{"http://10.0.0.2:7070"}}, true,
			[]Action{{Kind: Fail, Instance: "i-1", Reason: "checkpoint 000000000000 is not here: disk full"}}},
		{"failed from other sources", true, &Checkpoint{State: api.CheckpointFailed, Reason: "disk full", RetryAt: now.Add(time.Second)}, true,
			[]Action{{Kind: Fail, Instance: "i-1", Reason: "checkpoint 000000000000 is not here: disk full"}, {Kind: Fetch, Digest: digestOf(1)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Desired{Desired: desired(1, 1, restored("i-1")), Heard: now}
			if c.sources {
				d.Desired = from(d.Desired, digestOf(1))
			}
			a := Actual{Restores: c.restores, Reason: "the trial failed", Capacity: 5, Checkpoints: map[api.Digest]Checkpoint{}}
			if c.checkpoint != nil {
				a.Checkpoints[digestOf(1)] = *c.checkpoint
			}
			if diff := cmp.Diff(Plan(d, a, now), c.want); diff != "" {
				t.Errorf("plan (-got +want):\n%s", diff)
			}
		})
	}
}
