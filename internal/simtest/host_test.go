package simtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/agent/pool"
	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
)

// host is a node: its containers and its disk outlive its agent.
type host struct {
	id     api.NodeID
	dir    string
	logger *slog.Logger

	mu         sync.Mutex // guards everything below
	rng        *rand.Rand
	failing    float64 // share of starts that fail
	silent     bool    // cut off: nobody gets an answer
	crashing   bool    // the agent is being killed: nothing is cleaned up
	agent      *pool.Pool
	stop       func()
	containers map[api.InstanceID]api.ObservedInstance
	disk       map[api.Digest]bool
}

func newHost(t *testing.T, name string, seed uint64, logger *slog.Logger) *host {
	h := &host{
		id: api.NodeID(name), dir: t.TempDir(), logger: logger.With("node", name),
		rng:        rand.New(rand.NewPCG(seed, uint64(len(name))+uint64(name[len(name)-1]))),
		containers: map[api.InstanceID]api.ObservedInstance{}, disk: map[api.Digest]bool{},
	}
	h.boot(t)
	t.Cleanup(h.kill)
	return h
}

// boot starts the agent on what is there.
func (h *host) boot(t *testing.T) {
	t.Helper()
	p, err := pool.New(pool.Options{
		Dir:   h.dir,
		Node:  api.NodeInfo{ID: h.id, HostClass: "sim", Restores: true, Capacity: nodeCapacity},
		Ports: pool.PortRange{First: 20000, Last: 20999}, PortFree: func(int) bool { return true }, Starts: 4,
		Runtime: runtime{h}, Checkpoints: library{h}, Host: room{}, Recorder: ignore{}, Logger: h.logger,
	})
	if err != nil {
		t.Fatalf("make the agent of %s: %v", h.id, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Run(ctx) // it has no other way to end
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.agent, h.crashing = p, false
	h.stop = func() { cancel(); <-done }
}

// kill ends the agent without letting it clean up. Containers run on.
func (h *host) kill() {
	h.mu.Lock()
	stop := h.stop
	h.agent, h.stop, h.crashing = nil, nil, true
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (h *host) cut(silent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = silent
}

// draw returns a random duration between bounds.
func (h *host) draw(from, to time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return from + time.Duration(h.rng.Int64N(int64(to-from)))
}

// left lists the containers that exist.
func (h *host) left() []api.InstanceID {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []api.InstanceID
	for id := range h.containers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// wire is the way from one scheduler to the host.
type wire struct{ h *host }

func (w wire) reach(ctx context.Context) (*pool.Pool, error) {
	w.h.mu.Lock()
	silent, p := w.h.silent, w.h.agent
	w.h.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, errors.New("no answer")
	}
	if p == nil {
		return nil, fmt.Errorf("%w: nobody listens", reconcile.ErrRefused)
	}
	return p, pause(ctx, time.Millisecond)
}

// Desire implements reconcile.Agent.
func (w wire) Desire(ctx context.Context, d api.Desired) (api.Observed, error) {
	p, err := w.reach(ctx)
	if err != nil {
		return api.Observed{}, err
	}
	o, err := p.Accept(ctx, d)
	return o, notReady(err)
}

// Observe implements reconcile.Agent. A host that is cut off while it is asked
// gives no answer either.
func (w wire) Observe(ctx context.Context, boot string, after uint64) (api.Observed, error) {
	p, err := w.reach(ctx)
	if err != nil {
		return api.Observed{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	o, err := p.Observe(bounded, boot, after)
	if _, again := w.reach(ctx); again != nil {
		return api.Observed{}, again
	}
	return o, notReady(err)
}

// notReady is what the adapter of the HTTP client makes of that answer.
func notReady(err error) error {
	if api.CodeOf(err) == api.CodeUnavailable {
		return fmt.Errorf("%w: %w", reconcile.ErrRefused, err)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// runtime is Podman without containers.
type runtime struct{ h *host }

// List implements pool.Runtime.
func (r runtime) List(context.Context) ([]api.ObservedInstance, error) {
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	var all []api.ObservedInstance
	for _, c := range r.h.containers {
		all = append(all, api.ObservedInstance{ID: c.ID, State: c.State, Port: c.Port})
	}
	slices.SortFunc(all, func(a, b api.ObservedInstance) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// Start implements pool.Runtime.
func (r runtime) Start(ctx context.Context, _ api.TemplateRevision, want api.DesiredInstance, port int) (api.ObservedInstance, error) {
	i := api.ObservedInstance{
		ID: want.ID, State: api.InstanceWarm, Port: port,
		Credentials: &api.Credentials{Username: "admin", Password: string(want.ID)},
	}
	r.h.mu.Lock()
	r.h.containers[want.ID] = i
	fails := r.h.rng.Float64() < r.h.failing
	r.h.mu.Unlock()
	err := pause(ctx, r.h.draw(100*time.Millisecond, 600*time.Millisecond))
	if err == nil && fails {
		err = errors.New("this start was meant to fail")
	}
	if err != nil {
		return api.ObservedInstance{}, errors.Join(err, r.Remove(context.WithoutCancel(ctx), want.ID))
	}
	return i, nil
}

// Remove implements pool.Runtime. A killed agent removes nothing.
func (r runtime) Remove(_ context.Context, id api.InstanceID) error {
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	if r.h.crashing {
		return errors.New("the agent was killed")
	}
	delete(r.h.containers, id)
	return nil
}

// Build implements pool.Runtime.
func (r runtime) Build(ctx context.Context, t api.TemplateRevision, _ int) (api.ObservedBuild, error) {
	if err := pause(ctx, r.h.draw(time.Second, 3*time.Second)); err != nil {
		return api.ObservedBuild{}, err
	}
	digest := api.Digest(fmt.Sprintf("%064x", t.Revision))
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	r.h.disk[digest] = true
	return api.ObservedBuild{Digest: digest, Size: 1 << 20}, nil
}

// library is a store of checkpoints that fetches by wish.
type library struct{ h *host }

// List implements pool.Checkpoints.
func (l library) List(context.Context) ([]api.Digest, error) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	var all []api.Digest
	for d := range l.h.disk {
		all = append(all, d)
	}
	slices.Sort(all)
	return all, nil
}

// Ensure implements pool.Checkpoints.
func (l library) Ensure(ctx context.Context, src api.CheckpointSource) error {
	l.h.mu.Lock()
	have := l.h.disk[src.Digest]
	l.h.mu.Unlock()
	if have {
		return nil
	}
	if len(src.Sources) == 0 {
		return errors.New("nobody has this checkpoint")
	}
	if err := pause(ctx, l.h.draw(200*time.Millisecond, time.Second)); err != nil {
		return err
	}
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.h.disk[src.Digest] = true
	return nil
}

// Remove implements pool.Checkpoints.
func (l library) Remove(_ context.Context, digest api.Digest) error {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	delete(l.h.disk, digest)
	return nil
}

type room struct{}

// Available implements pool.Host.
func (room) Available() (memory, disk api.Bytes) { return 16 << 30, 100 << 30 }

type ignore struct{}

// Stage implements pool.Recorder.
func (ignore) Stage(string, time.Duration) {}

// Failure implements pool.Recorder.
func (ignore) Failure(string) {}
