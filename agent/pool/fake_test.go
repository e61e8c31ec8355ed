package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// fakeRuntime runs instances and keeps checkpoints in memory. It can break or
// hang any one operation by its name: list, start, remove, build, ensure,
// discard.
type fakeRuntime struct {
	mu          sync.Mutex // guards the fields below
	containers  map[api.InstanceID]api.ObservedInstance
	checkpoints map[api.Digest]bool
	broken      map[string]error
	hanging     map[string]bool
	leave       bool // a failed start leaves its container
	calls       map[string]int
	starting    int
	mostStarts  int
}

const (
	startTook  = 300 * time.Millisecond
	removeTook = 100 * time.Millisecond
	buildTook  = 5 * time.Second
	fetchTook  = 2 * time.Second
)

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{
		containers: map[api.InstanceID]api.ObservedInstance{}, checkpoints: map[api.Digest]bool{},
		broken: map[string]error{}, hanging: map[string]bool{}, calls: map[string]int{},
	}
}

// clone returns the runtime as a new process would find it.
func (f *fakeRuntime) clone() *fakeRuntime {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := newFakeRuntime()
	c.containers, c.checkpoints = maps.Clone(f.containers), maps.Clone(f.checkpoints)
	return c
}

// set makes operations break, hang, or work again.
func (f *fakeRuntime) set(operation string, broken error, hanging bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[operation], f.hanging[operation] = broken, hanging
}

func (f *fakeRuntime) called(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[operation]
}

// do takes its time and returns what was set for the operation.
func (f *fakeRuntime) do(ctx context.Context, operation string, took time.Duration) error {
	f.mu.Lock()
	f.calls[operation]++
	broken, hanging := f.broken[operation], f.hanging[operation]
	f.mu.Unlock()
	if hanging {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
		return broken
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *fakeRuntime) List(ctx context.Context) ([]api.ObservedInstance, error) {
	err := f.do(ctx, "list", time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.containers)), err
}

func (f *fakeRuntime) Start(ctx context.Context, _ api.TemplateRevision, want api.DesiredInstance, port int) (api.ObservedInstance, error) {
	f.mu.Lock()
	f.starting++
	f.mostStarts = max(f.mostStarts, f.starting)
	f.containers[want.ID] = api.ObservedInstance{ID: want.ID, State: api.InstanceWarm, Port: port}
	f.mu.Unlock()
	err := f.do(ctx, "start", startTook)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starting--
	if err != nil {
		if !f.leave {
			delete(f.containers, want.ID)
		}
		return api.ObservedInstance{}, err
	}
	i := f.containers[want.ID]
	i.Credentials = &api.Credentials{Username: "admin", Password: "of " + string(want.ID)}
	i.Stages = []api.Stage{{Name: api.StageRestore, Took: api.Duration(startTook)}}
	return i, nil
}

func (f *fakeRuntime) Remove(ctx context.Context, id api.InstanceID) error {
	err := f.do(ctx, "remove", removeTook)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.containers, id)
	}
	return err
}

func (f *fakeRuntime) Build(ctx context.Context, t api.TemplateRevision, _ int) (api.ObservedBuild, error) {
	if err := f.do(ctx, "build", buildTook); err != nil {
		return api.ObservedBuild{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digestOf(byte(t.Revision))
	f.checkpoints[d] = true
	return api.ObservedBuild{Digest: d, Size: 1 << 20, Stages: []api.Stage{{Name: api.StageColdBoot, Took: api.Duration(buildTook)}}}, nil
}

// vanish makes a container go without anybody having asked.
func (f *fakeRuntime) vanish(id api.InstanceID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
}

// put makes a container that the agent did not start.
func (f *fakeRuntime) put(i api.ObservedInstance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[i.ID] = i
}

func (f *fakeRuntime) running() []api.InstanceID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.containers))
}

// library is the part of a fakeRuntime that keeps checkpoints.
type library struct{ *fakeRuntime }

func (l library) List(context.Context) ([]api.Digest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.checkpoints)), nil
}

func (l library) Ensure(ctx context.Context, src api.CheckpointSource) error {
	err := l.do(ctx, "ensure", fetchTook)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.checkpoints[src.Digest] = true
	}
	return err
}

func (l library) Remove(ctx context.Context, digest api.Digest) error {
	err := l.do(ctx, "discard", removeTook)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.checkpoints, digest)
	}
	return err
}

type fakeHost struct{}

func (fakeHost) Available() (memory, disk api.Bytes) { return 3<<30 + 5, 50<<30 + 5 }

type fakeRecorder struct {
	mu       sync.Mutex // guards failures
	failures map[string]int
}

func (*fakeRecorder) Stage(string, time.Duration) {}

func (r *fakeRecorder) Failure(stage string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures == nil {
		r.failures = map[string]int{}
	}
	r.failures[stage]++
}

func (r *fakeRecorder) count(stage string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures[stage]
}

// agent is a running pool under test.
type agent struct {
	*Pool
	t        *testing.T
	dir      string
	runtime  *fakeRuntime
	recorder *fakeRecorder
	stop     func()
}

const testCapacity = 6

func optionsIn(dir string, f *fakeRuntime, r *fakeRecorder) Options {
	return Options{
		Dir:    dir,
		Node:   api.NodeInfo{ID: "a1", HostClass: "class", Restores: true, Capacity: testCapacity},
		Ports:  PortRange{First: 20000, Last: 20009},
		Starts: 2, PortFree: func(int) bool { return true },
		Runtime: f, Checkpoints: library{f}, Host: fakeHost{}, Recorder: r, Logger: slog.New(slog.DiscardHandler),
	}
}

// run runs a pool in dir until the test or agent.stop ends it. Call it in a
// synctest bubble.
func run(t *testing.T, dir string, f *fakeRuntime) *agent {
	t.Helper()
	a := &agent{t: t, dir: dir, runtime: f, recorder: &fakeRecorder{}}
	var err error
	if a.Pool, err = New(optionsIn(dir, f, a.recorder)); err != nil {
		t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want no error", err)
		}
	})
	t.Cleanup(a.stop)
	a.settle(10 * time.Millisecond) // the first list
	return a
}

// crash returns what a new process would find if the agent died right now:
// nothing that this agent does from now on reaches it.
func (a *agent) crash() *agent {
	a.t.Helper()
	dir := a.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(a.dir)); err != nil {
		a.t.Fatalf("copy the records: %v", err)
	}
	f := a.runtime.clone()
	a.stop()
	return run(a.t, dir, f)
}

// settle lets time pass and everything come to rest.
func (a *agent) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// desire sends what a leader desires and fails the test where it is refused.
func (a *agent) desire(d api.Desired) api.Observed {
	a.t.Helper()
	o, err := a.Accept(a.t.Context(), d)
	if err != nil {
		a.t.Fatalf("Accept(term %d, generation %d): %v", d.Term, d.Generation, err)
	}
	return o
}

// states spells what is observed: "i-1 warm, i-2 failed".
func (a *agent) states() string {
	text := ""
	for n, i := range a.Observed().Instances {
		if n > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s %s", i.ID, i.State)
	}
	return text
}

func (a *agent) wantStates(want string) {
	a.t.Helper()
	if got := a.states(); got != want {
		a.t.Errorf("observed instances: got %q, want %q", got, want)
	}
}

func (a *agent) wantRunning(want ...api.InstanceID) {
	a.t.Helper()
	if got := a.runtime.running(); !slices.Equal(got, want) {
		a.t.Errorf("containers: got %v, want %v", got, want)
	}
}

func (a *agent) instance(id api.InstanceID) api.ObservedInstance {
	a.t.Helper()
	for _, i := range a.Observed().Instances {
		if i.ID == id {
			return i
		}
	}
	a.t.Fatalf("no instance %s is observed; there are: %s", id, a.states())
	return api.ObservedInstance{}
}

var errBroken = errors.New("broken\nfor the test")

// What leaders desire in these tests.

func digestOf(b byte) api.Digest { return api.Digest(fmt.Sprintf("%064x", b)) }

func revision(n uint64) api.TemplateRevision {
	t := api.Template{Name: "tiny", Image: "localhost/demo/tiny:latest", Port: 8080}.WithDefaults()
	return api.TemplateRevision{Template: t, Revision: n}
}

func warm(id api.InstanceID) api.DesiredInstance {
	host := string(id) + ".demo.localhost"
	return api.DesiredInstance{ID: id, Template: revision(1).Ref(), Host: host, URL: "http://" + host, State: api.InstanceWarm}
}

func restored(id api.InstanceID) api.DesiredInstance {
	w := warm(id)
	w.Checkpoint = digestOf(1)
	return w
}

func leased(id api.InstanceID, epoch uint64, left time.Duration) api.DesiredInstance {
	w := warm(id)
	w.State, w.Epoch, w.ExpiresIn = api.InstanceLeased, epoch, api.Duration(left)
	return w
}

func desired(term, generation uint64, instances ...api.DesiredInstance) api.Desired {
	return api.Desired{Term: term, Generation: generation, Templates: []api.TemplateRevision{revision(1)}, Instances: instances}
}

// from adds that checkpoints can be fetched.
func from(d api.Desired, digests ...api.Digest) api.Desired {
	for _, digest := range digests {
		d.Checkpoints = append(d.Checkpoints, api.CheckpointSource{Digest: digest, For: revision(1).Ref(), Sources: []string{"http://10.0.0.2:7070"}})
	}
	return d
}

// building adds that a checkpoint be built.
func building(d api.Desired, attempt uint64) api.Desired {
	d.Builds = append(d.Builds, api.Build{Template: revision(1).Ref(), Attempt: attempt})
	return d
}
