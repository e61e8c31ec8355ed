package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// world is a service on fakes, inside a bubble of virtual time.
type world struct {
	*Service
	t       *testing.T
	log     *fakeLog
	records *fakeRecords
	fleet   *fakeFleet
	logged  *lockedBuffer
	n       int
	stop    func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// inWorld runs a test in virtual time against a running service with a
// template shop, two nodes and count warm instances that the edges serve.
func inWorld(t *testing.T, count int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, log: newFakeLog(), records: newFakeRecords(), fleet: newFakeFleet(), logged: &lockedBuffer{}}
		s, err := New(Options{
			Log: w.log, Records: w.records, Routes: w.fleet, Nodes: w.fleet,
			URL:        func(host string) string { return "https://" + host + ".demo.test" },
			Logger:     slog.New(slog.NewTextHandler(w.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Registerer: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		w.Service = s
		w.must(state.PutTemplate{Spec: shop()})
		w.must(state.PutNode{Node: state.Node{ID: "n0", Capacity: 1000}})
		w.must(state.PutNode{Node: state.Node{ID: "n1", Capacity: 1000}})
		for range count {
			w.warm()
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		w.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		defer w.stop()
		test(t, w)
		w.sound()
	})
}

func shop() api.Template {
	return api.Template{
		Name: "shop", Image: "img", Port: 80, AdminPath: "/admin/", Pool: api.Pool{Warm: 3},
		TTL: api.TTL{Default: api.Duration(30 * time.Minute), Max: api.Duration(2 * time.Hour)},
	}
}

// sound checks what must hold at the end of every test.
func (w *world) sound() {
	w.t.Helper()
	if err := state.Check(w.log.View()); err != nil {
		w.t.Errorf("the state is not sound: %v", err)
	}
	synctest.Wait()
	w.Service.stock.mu.Lock()
	defer w.Service.stock.mu.Unlock()
	if n := len(w.Service.stock.claimed); n != 0 {
		w.t.Errorf("%d instances are still claimed", n)
	}
	if n, lines := w.Service.stock.queued, len(w.Service.stock.lines); n != 0 || lines != 0 {
		w.t.Errorf("%d callers still stand in %d lines", n, lines)
	}
	if n := len(w.Service.keys.held); n != 0 {
		w.t.Errorf("%d idempotency keys are still held", n)
	}
}

func (w *world) must(cmd state.Command) state.Result {
	w.t.Helper()
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	r := w.log.apply(cmd)
	if r.Refusal != nil {
		w.t.Fatalf("%+v refused: %v", cmd, r.Refusal)
	}
	return r
}

// warm adds an instance, on either node in turn.
func (w *world) warm() api.InstanceID {
	w.t.Helper()
	id := api.InstanceID(fmt.Sprintf("i-%04d", w.n))
	w.must(state.CreateInstance{
		ID: id, Template: api.TemplateRef{Name: "shop", Revision: 1}, Node: api.NodeID(fmt.Sprintf("n%d", w.n%2)), Host: fmt.Sprintf("d-%04d", w.n),
	})
	w.must(state.WarmInstance{ID: id, Address: "10.0.0.1:4000", Credentials: &api.Credentials{Username: "admin", Password: "pass-" + string(id)}})
	w.n++
	return id
}

// acquire leases for a minute, under a key if one is given.
func (w *world) acquire(key string) (api.Demo, bool, error) {
	return w.Acquire(w.t.Context(), call(key, 0))
}

func call(key string, wait time.Duration) api.AcquireCall {
	return api.AcquireCall{
		AcquireRequest: api.AcquireRequest{Template: "shop", TTL: api.Duration(time.Minute)}, IdempotencyKey: key, Wait: wait,
	}
}

func (w *world) mustAcquire(key string) api.Demo {
	w.t.Helper()
	d, _, err := w.acquire(key)
	if err != nil {
		w.t.Fatalf("Acquire: %v", err)
	}
	return d
}

// wantCode checks the code of an error and returns the error itself.
func wantCode(t *testing.T, what string, err error, want api.Code) api.Error {
	t.Helper()
	if got := api.CodeOf(err); got != want {
		t.Errorf("%s: got %v (code %q), want code %q", what, err, got, want)
	}
	var e *api.Error
	if !errors.As(err, &e) {
		return api.Error{}
	}
	return *e
}

// instanceOf returns the instance that a demo is on.
func (w *world) instanceOf(d api.Demo) api.InstanceID {
	w.t.Helper()
	l, ok := w.log.View().Lease(d.ID)
	if !ok {
		w.t.Fatal("a demo without a lease was given out")
	}
	return l.Instance
}
