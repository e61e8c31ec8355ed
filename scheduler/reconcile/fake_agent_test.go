package reconcile_test

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
)

// How a fakeAgent answers.
const (
	answers = "answers"
	silent  = "silent"  // calls hang until their caller gives up
	refuses = "refuses" // the host says that nobody listens
)

// fakeAgent behaves like the agent of one node: it fences, starts, builds,
// fetches, leases and removes, each in its time.
type fakeAgent struct {
	node api.NodeInfo
	url  string

	mu      sync.Mutex // guards the fields below
	mode    string
	boot    int
	rev     uint64
	desired api.Desired
	things  map[api.InstanceID]*api.ObservedInstance
	held    map[api.Digest]api.CheckpointState
	built   map[api.TemplateRef]*api.ObservedBuild
	changed chan struct{}
	port    int

	startTook, buildTook, fetchTook time.Duration
	failStart, failBuild            string // reason; empty: succeeds
	fetchedFrom                     []string
	dropped                         []api.InstanceID // leased ones that had to go
	faults                          []string         // what no leader may ask
}

func newFakeAgent(id api.NodeID, n int) *fakeAgent {
	return &fakeAgent{
		node: api.NodeInfo{ID: id, HostClass: "class-a", Restores: true, Capacity: 20},
		url:  fmt.Sprintf("http://10.0.0.%d:7070", n), mode: answers, boot: 1, rev: 1, port: 20000,
		things: map[api.InstanceID]*api.ObservedInstance{}, held: map[api.Digest]api.CheckpointState{},
		built: map[api.TemplateRef]*api.ObservedBuild{}, changed: make(chan struct{}),
		startTook: 300 * time.Millisecond, buildTook: 3 * time.Second, fetchTook: time.Second,
	}
}

func (a *fakeAgent) set(change func(a *fakeAgent)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
	a.touch()
}

// restart is a new process that adopts what runs.
func (a *fakeAgent) restart() {
	a.set(func(a *fakeAgent) { a.boot++; a.rev = 0 })
}

func (a *fakeAgent) touch() {
	a.rev++
	close(a.changed)
	a.changed = make(chan struct{})
}

// reach fails where nobody answers. The caller holds no lock.
func (a *fakeAgent) reach(ctx context.Context) error {
	a.mu.Lock()
	mode := a.mode
	a.mu.Unlock()
	switch mode {
	case silent:
		<-ctx.Done()
		return fmt.Errorf("no answer: %w", ctx.Err())
	case refuses:
		return fmt.Errorf("%w: connection refused", reconcile.ErrRefused)
	}
	return nil
}

func (a *fakeAgent) Desire(ctx context.Context, d api.Desired) (api.Observed, error) {
	if err := a.reach(ctx); err != nil {
		return api.Observed{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.Term < a.desired.Term || d.Term == a.desired.Term && d.Generation < a.desired.Generation {
		return api.Observed{}, api.Errorf(api.CodeConflict, "term %d generation %d is old", d.Term, d.Generation)
	}
	a.judge(d)
	renewed := d.Term != a.desired.Term || d.Generation != a.desired.Generation
	a.desired = d
	if a.follow() || renewed {
		a.touch()
	}
	return a.observe(), nil
}

// judge notes what a correct leader never sends.
func (a *fakeAgent) judge(d api.Desired) {
	refs := map[api.TemplateRef]bool{}
	for _, t := range d.Templates {
		refs[t.Ref()] = true
	}
	fault := func(format string, args ...any) { a.faults = append(a.faults, fmt.Sprintf(format, args...)) }
	for _, i := range d.Instances {
		if !refs[i.Template] {
			fault("instance %s without its template", i.ID)
		}
		if i.State == api.InstanceLeased && (i.ExpiresIn <= 0 || i.Epoch == 0) {
			fault("instance %s leased without time or epoch", i.ID)
		}
		if !strings.Contains(i.URL, i.Host) {
			fault("instance %s: URL %q without host %q", i.ID, i.URL, i.Host)
		}
	}
	if d.Term == a.desired.Term && d.Generation == a.desired.Generation && !reflect.DeepEqual(timeless(d), timeless(a.desired)) {
		fault("generation %d was sent with two contents", d.Generation)
	}
}

func timeless(d api.Desired) api.Desired {
	d.Instances = slices.Clone(d.Instances)
	for n := range d.Instances {
		d.Instances[n].ExpiresIn = 0
	}
	return d
}

func (a *fakeAgent) Observe(ctx context.Context, boot string, after uint64) (api.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	poll := time.NewTimer(10 * time.Second)
	defer poll.Stop()
	for {
		if err := a.reach(ctx); err != nil {
			return api.Observed{}, err
		}
		a.mu.Lock()
		o, changed := a.observe(), a.changed
		a.mu.Unlock()
		if o.Boot != boot || o.Revision > after {
			return o, nil
		}
		select {
		case <-changed:
		case <-poll.C:
			return o, nil
		case <-ctx.Done():
			return api.Observed{}, ctx.Err()
		}
	}
}

func (a *fakeAgent) observe() api.Observed {
	o := api.Observed{
		Node: a.node, Boot: fmt.Sprintf("%s-%d", a.node.ID, a.boot), Revision: a.rev, Term: a.desired.Term, Generation: a.desired.Generation,
	}
	for _, id := range slices.Sorted(maps.Keys(a.things)) {
		o.Instances = append(o.Instances, *a.things[id])
	}
	for _, digest := range slices.Sorted(maps.Keys(a.held)) {
		o.Checkpoints = append(o.Checkpoints, api.ObservedCheckpoint{Digest: digest, State: a.held[digest]})
	}
	for _, b := range a.built {
		o.Builds = append(o.Builds, *b)
	}
	return o
}

// follow does what is desired and not done, and reports whether that changed
// what is to be seen.
func (a *fakeAgent) follow() (changed bool) {
	named := map[api.InstanceID]bool{}
	for _, want := range a.desired.Instances {
		named[want.ID] = true
		changed = a.keep(want) || changed
	}
	for id, i := range a.things {
		if !named[id] {
			if i.State == api.InstanceLeased {
				a.dropped = append(a.dropped, id)
			}
			delete(a.things, id)
			changed = true
		}
	}
	for _, src := range a.desired.Checkpoints {
		if a.held[src.Digest] == "" && len(src.Sources) > 0 {
			a.held[src.Digest] = api.CheckpointFetching
			a.fetchedFrom = append(a.fetchedFrom, src.Sources[0])
			a.after(a.fetchTook, func() { a.held[src.Digest] = api.CheckpointReady })
			changed = true
		}
	}
	for _, b := range a.desired.Builds {
		if old := a.built[b.Template]; old == nil || old.Build.Attempt < b.Attempt {
			a.built[b.Template] = &api.ObservedBuild{Build: b, State: api.CheckpointBuilding}
			a.after(a.buildTook, func() { a.finish(b) })
			changed = true
		}
	}
	return changed
}

func (a *fakeAgent) finish(b api.Build) {
	done := &api.ObservedBuild{Build: b, State: api.CheckpointReady, Digest: digestOf(b.Template), Size: 1 << 20}
	if a.failBuild != "" {
		done = &api.ObservedBuild{Build: b, State: api.CheckpointFailed, Reason: a.failBuild}
	} else {
		a.held[done.Digest] = api.CheckpointReady
	}
	a.built[b.Template] = done
}

func digestOf(ref api.TemplateRef) api.Digest {
	return api.Digest(fmt.Sprintf("%064x", len(ref.Name)*1000+int(ref.Revision)))
}

func (a *fakeAgent) keep(want api.DesiredInstance) (changed bool) {
	i, ok := a.things[want.ID]
	switch {
	case !ok && want.State == api.InstanceLeased:
		a.things[want.ID] = &api.ObservedInstance{ID: want.ID, State: api.InstanceFailed, Reason: "the leased instance is not on this node"}
		return true
	case !ok && want.Checkpoint != "" && a.held[want.Checkpoint] != api.CheckpointReady:
		return false
	case !ok:
		a.things[want.ID] = &api.ObservedInstance{ID: want.ID, State: api.InstanceRestoring}
		a.after(a.startTook, func() { a.started(want.ID) })
		return true
	case want.State == api.InstanceLeased && i.State != api.InstanceFailed && (i.State != api.InstanceLeased || i.Epoch < want.Epoch):
		i.State, i.Epoch = api.InstanceLeased, want.Epoch
		return true
	}
	return false
}

func (a *fakeAgent) started(id api.InstanceID) {
	i, ok := a.things[id]
	if !ok {
		return
	}
	if a.failStart != "" {
		i.State, i.Reason = api.InstanceFailed, a.failStart
		return
	}
	a.port++
	i.State, i.Port, i.Credentials = api.InstanceWarm, a.port, &api.Credentials{Username: "admin", Password: "secret"}
}

// after changes the node later, and then follows what is desired again.
func (a *fakeAgent) after(d time.Duration, change func()) {
	time.AfterFunc(d, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		change()
		a.follow()
		a.touch()
	})
}

func (a *fakeAgent) containers() map[api.InstanceState]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := map[api.InstanceState]int{}
	for _, i := range a.things {
		n[i.State]++
	}
	return n
}

// history returns what the node did: where it fetched from, which leased
// containers it dropped, and what it should never have been asked.
func (a *fakeAgent) history() (fetchedFrom []string, dropped []api.InstanceID, faults []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.fetchedFrom), slices.Clone(a.dropped), slices.Clone(a.faults)
}
