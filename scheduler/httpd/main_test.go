package httpd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clusterToken = "cluster-token-of-these-tests"
	adminToken   = "admin-token-of-these-tests"
	acquirePath  = "/api/v1/demo/acquire"
)

// network connects clients and servers by pipes, so that time is virtual.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener // by host and port
	silent    map[string]bool      // hosts that are cut off: dialling works, nothing comes back
}

func newNetwork() *network {
	return &network{listeners: map[string]*listener{}, silent: map[string]bool{}}
}

var errRefused = errors.New("connection refused")

// dialer dials from an address.
func (n *network) dialer(from string) func(ctx context.Context, _, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		n.mu.Lock()
		l, silent := n.listeners[address], n.silent[address]
		n.mu.Unlock()
		near, far := net.Pipe()
		switch {
		case silent:
			go func() { _, _ = io.Copy(io.Discard, far) }() // ends when near is closed
			return near, nil
		case l == nil:
			return nil, errRefused
		}
		select {
		case l.backlog <- &conn{Conn: far, remote: from}:
			return near, nil
		case <-l.closed:
			return nil, errRefused
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (n *network) listen(address string) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{address: address, backlog: make(chan *conn), closed: make(chan struct{})}
	n.listeners[address] = l
	return l
}

// kill breaks all connections of a host and refuses new ones.
func (n *network) kill(address string) {
	n.mu.Lock()
	l := n.listeners[address]
	delete(n.listeners, address)
	n.mu.Unlock()
	_ = l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.accepted {
		_ = c.Close()
	}
}

// cut makes a host silent for new connections.
func (n *network) cut(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent[address] = true
}

type listener struct {
	address string
	backlog chan *conn
	closed  chan struct{}
	once    sync.Once

	mu       sync.Mutex
	accepted []*conn
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		l.mu.Lock()
		l.accepted = append(l.accepted, c)
		l.mu.Unlock()
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.address) }

type conn struct {
	net.Conn
	remote string
}

func (c *conn) RemoteAddr() net.Addr { return address(c.remote) }

type address string

func (address) Network() string  { return "pipe" }
func (a address) String() string { return string(a) }

// node is one scheduler's API.
type node struct {
	id       string
	address  string
	server   *Server
	demos    *fakeDemos
	cluster  *fakeCluster
	limiter  *fakeLimiter
	registry *prometheus.Registry
	network  *network
	stop     func()
}

// start serves the API of a scheduler of g until the test ends.
func start(t testing.TB, n *network, g *group, id string, change ...func(*Options)) *node {
	t.Helper()
	x := &node{id: id, address: id + ":8080", network: n, registry: prometheus.NewRegistry(), limiter: &fakeLimiter{perHour: 5, seen: map[string]int64{}}}
	x.demos = &fakeDemos{group: g, id: id}
	x.cluster = &fakeCluster{group: g, id: id}
	o := options(x)
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	s.forwarder.transport.DialContext = n.dialer(id + ":50000")
	x.server = s
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	server := httpx.NewServer(n.listen(x.address), s, o.Logger)
	go func() {
		defer close(ended)
		if err := server.Run(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("server %s: %v", id, err)
		}
	}()
	x.stop = func() { // any number of times: a channel, because waiting for a mutex holds up virtual time
		cancel()
		<-ended
		s.Close()
	}
	t.Cleanup(x.stop)
	return x
}

func options(x *node) Options {
	logger := slog.New(slog.DiscardHandler)
	return Options{
		Adapter: httpx.NewAdapter(logger, x.registry, "demo_scheduler"), Demos: x.demos, Limiter: x.limiter, Cluster: x.cluster,
		Health:  func() api.Health { return api.Health{Ready: true} },
		Metrics: promhttp.HandlerFor(x.registry, promhttp.HandlerOpts{}), ClusterToken: clusterToken, AdminToken: adminToken,
		Server: api.ServerID(x.id), MaxStreams: 100, Logger: logger, Registerer: x.registry,
	}
}

// request is one request to a node.
type request struct {
	method, path, body string
	header             map[string]string
	from               string // address of the caller
}

type reply struct {
	status int
	header http.Header
	body   string
}

// open sends r and returns the reply with its body open. The connection ends
// with the test.
func (x *node) open(t testing.TB, r request) *http.Response {
	t.Helper()
	if r.from == "" {
		r.from = "192.0.2.1:1234"
	}
	transport := &http.Transport{DialContext: x.network.dialer(r.from), DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), r.method, "http://"+x.address+r.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.body != "" {
		req.Body = io.NopCloser(newReader(r.body))
		req.ContentLength = int64(len(r.body))
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatalf("%s %s at %s: %v", r.method, r.path, x.id, err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func (x *node) do(t testing.TB, r request) reply {
	t.Helper()
	res := x.open(t, r)
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s at %s: read the reply: %v", r.method, r.path, x.id, err)
	}
	return reply{status: res.StatusCode, header: res.Header, body: string(body)}
}

// group is the replicated state of some schedulers.
type group struct {
	mu     sync.Mutex
	leader string // empty: none
	demos  map[api.LeaseID]api.Demo
	keys   map[string]api.LeaseID
	warm   int
	made   int           // demos ever made
	change chan struct{} // closed and replaced with every change
}

func newGroup(leader string) *group {
	return &group{leader: leader, demos: map[api.LeaseID]api.Demo{}, keys: map[string]api.LeaseID{}, warm: 100, change: make(chan struct{})}
}

// update changes the state and wakes everybody.
func (g *group) update(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.change)
	g.change = make(chan struct{})
}

func (g *group) elect(id string) { g.update(func() { g.leader = id }) }

// lease puts a demo into the state.
func (g *group) lease(ttl time.Duration) api.Demo {
	d := api.Demo{
		ID: api.NewLeaseID(), State: api.DemoActive, Template: "shop", URL: "http://d-x.demo.localhost",
		ExpiresAt: time.Now().Add(ttl), Epoch: 1, Revision: 7,
	}
	g.put(d)
	return d
}

func (g *group) put(d api.Demo) { g.update(func() { g.demos[d.ID] = d }) }
