package api

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// request is what a fake server got.
type request struct {
	Line   string // method and target
	Body   string
	Header http.Header // only what a test looks at
}

// looked names the headers that tests look at.
var looked = []string{"Authorization", "Content-Type", "Idempotency-Key", "Prefer"}

// fake is a server that gives one reply to everything and remembers what it
// was asked.
type fake struct {
	*httptest.Server
	mu  sync.Mutex
	got []request
}

func serve(t *testing.T, reply http.HandlerFunc) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read the request: %v", err)
		}
		q := request{Line: r.Method + " " + r.RequestURI, Body: string(body), Header: http.Header{}}
		for _, name := range looked {
			if v, ok := r.Header[name]; ok {
				q.Header[name] = v
			}
		}
		f.mu.Lock()
		f.got = append(f.got, q)
		f.mu.Unlock()
		reply(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// requests returns what the server was asked.
func (f *fake) requests() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]request(nil), f.got...)
}

// replyJSON replies with v, spelled in JSON.
func replyJSON(status int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
}

// refuse replies with a problem.
func refuse(code Code) http.HandlerFunc {
	return replyJSON(code.Status(), Problem{Status: code.Status(), Code: code, Detail: "no"})
}

// nobody returns a base URL at which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

func clientOf(t *testing.T, endpoints ...string) *Client {
	t.Helper()
	hc := newHTTPClient()
	t.Cleanup(hc.CloseIdleConnections)
	c, err := NewClient(ClientOptions{Endpoints: endpoints, Token: "secret", HTTPClient: hc})
	if err != nil {
		t.Fatalf("NewClient(%v): %v", endpoints, err)
	}
	return c
}

func TestNewClient(t *testing.T) {
	tests := map[string]struct {
		endpoints []string
		ok        bool
	}{
		"one":         {[]string{"http://127.0.0.1:8080"}, true},
		"slash":       {[]string{"https://demo.example/"}, true},
		"none":        {nil, false},
		"empty":       {[]string{""}, false},
		"no scheme":   {[]string{"127.0.0.1:8080"}, false},
		"scheme":      {[]string{"ftp://127.0.0.1"}, false},
		"no host":     {[]string{"http:///x"}, false},
		"query":       {[]string{"http://127.0.0.1?x=1"}, false},
		"fragment":    {[]string{"http://127.0.0.1#x"}, false},
		"user":        {[]string{"http://me:pw@127.0.0.1"}, false},
		"second one":  {[]string{"http://127.0.0.1:8080", "x"}, false},
		"unparseable": {[]string{"http://127.0.0.1:x"}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewClient(ClientOptions{Endpoints: test.endpoints})
			if (err == nil) != test.ok || err != nil && CodeOf(err) != CodeInvalid {
				t.Errorf("%v: got %v, want ok %v", test.endpoints, err, test.ok)
			}
			if err != nil && strings.Contains(err.Error(), "pw") {
				t.Errorf("%v: the error %q shows the password", test.endpoints, err)
			}
		})
	}
}

// TestCalls checks of every call what goes out and what comes back.
func TestCalls(t *testing.T) {
	ctx := t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const id = LeaseID("abcdefghijklmnopqrstuvwxyz")
	demo := Demo{ID: id, State: DemoActive, Template: "shop", URL: "http://d-x.demo.localhost/", Epoch: 1,
		Credentials: &Credentials{Username: "u", Password: "p"}, CreatedAt: at, ExpiresAt: at, ExtendableUntil: at, Revision: 9}
	shop := Template{Name: "shop", Image: "img", Port: 80}.WithDefaults()
	shopStatus := TemplateStatus{Template: shop, Revision: 3, Stats: TemplateStats{Template: "shop", Warm: 2}}
	shopJSON, err := json.Marshal(shop)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	plain := http.Header{"Authorization": {"Bearer secret"}}
	withBody := http.Header{"Authorization": {"Bearer secret"}, "Content-Type": {"application/json"}}
	tests := map[string]struct {
		call  func(*Client) (any, error)
		want  request
		reply any
	}{
		"acquire": {func(c *Client) (any, error) {
			return c.Acquire(ctx, AcquireCall{AcquireRequest: AcquireRequest{Template: "shop", TTL: Duration(time.Hour)}, IdempotencyKey: "k", Wait: 20 * time.Second})
		}, request{"POST /api/v1/demo/acquire", `{"template":"shop","ttl":"1h0m0s"}`, http.Header{"Authorization": {"Bearer secret"},
			"Content-Type": {"application/json"}, "Idempotency-Key": {"k"}, "Prefer": {"wait=20"}}}, demo},
		"demo": {func(c *Client) (any, error) { return c.Demo(ctx, id) },
			request{"GET /api/v1/demo/" + string(id), "", plain}, demo},
		"demo with a hostile id": {func(c *Client) (any, error) { return c.Demo(ctx, "../x?y#z") },
			request{"GET /api/v1/demo/..%2Fx%3Fy%23z", "", plain}, demo},
		"extend": {func(c *Client) (any, error) { return c.Extend(ctx, id, ExtendRequest{TTL: Duration(time.Minute)}) },
			request{"POST /api/v1/demo/" + string(id) + "/extend", `{"ttl":"1m0s"}`, withBody}, demo},
		"extend by default": {func(c *Client) (any, error) { return c.Extend(ctx, id, ExtendRequest{}) },
			request{"POST /api/v1/demo/" + string(id) + "/extend", `{}`, withBody}, demo},
		"release": {func(c *Client) (any, error) { return c.Release(ctx, id) },
			request{"DELETE /api/v1/demo/" + string(id), "", plain}, demo},
		"pool stats": {func(c *Client) (any, error) { return c.PoolStats(ctx) },
			request{"GET /api/v1/pool/stats", "", plain}, PoolStats{Templates: []TemplateStats{{Template: "shop", Warm: 1}}, AsOf: at}},
		"cluster": {func(c *Client) (any, error) { return c.Cluster(ctx) },
			request{"GET /api/v1/cluster", "", plain}, ClusterStatus{Server: "s1", Leader: "s2", Term: 3, StateTime: at, Servers: []ServerStatus{{ID: "s1"}}}},
		"nodes": {func(c *Client) (any, error) { return c.Nodes(ctx) },
			request{"GET /api/v1/nodes", "", plain}, []NodeStatus{{ID: "n1", Status: NodeUp, ChangedAt: at}}},
		"leases": {func(c *Client) (any, error) { return c.Leases(ctx) },
			request{"GET /api/v1/leases", "", plain}, []LeaseStatus{{ID: "abcd", CreatedAt: at, ExpiresAt: at}}},
		"instances": {func(c *Client) (any, error) { return c.Instances(ctx) },
			request{"GET /api/v1/instances", "", plain}, []InstanceStatus{{ID: "i-x", State: InstanceWarm, CreatedAt: at}}},
		"templates": {func(c *Client) (any, error) { return c.Templates(ctx) },
			request{"GET /api/v1/templates", "", plain}, []TemplateStatus{shopStatus}},
		"template": {func(c *Client) (any, error) { return c.Template(ctx, "shop") },
			request{"GET /api/v1/templates/shop", "", plain}, shopStatus},
		"apply template": {func(c *Client) (any, error) { return c.ApplyTemplate(ctx, shop) },
			request{"PUT /api/v1/templates/shop", string(shopJSON), withBody}, shopStatus},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, replyJSON(http.StatusOK, test.reply))
			got, err := test.call(clientOf(t, s.URL+"/"))
			if err != nil {
				t.Fatalf("got error %v", err)
			}
			if diff := cmp.Diff([]request{test.want}, s.requests()); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.reply, got); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAcquireHeaders(t *testing.T) {
	s := serve(t, replyJSON(http.StatusCreated, Demo{}))
	c, err := NewClient(ClientOptions{Endpoints: []string{s.URL}, HTTPClient: s.Client()})
	if err != nil {
		t.Fatalf("NewClient: %v", err)
	}
	for _, wait := range []time.Duration{0, 500 * time.Millisecond} {
		if _, err := c.Acquire(t.Context(), AcquireCall{Wait: wait}); err != nil {
			t.Fatalf("Acquire: %v", err)
		}
	}
	got := s.requests()
	first, second := got[0].Header, got[1].Header
	if first.Get("Idempotency-Key") == "" || first.Get("Idempotency-Key") == second.Get("Idempotency-Key") {
		t.Errorf("keys: got %q and %q, want two that differ", first.Get("Idempotency-Key"), second.Get("Idempotency-Key"))
	}
	if v, sent := first["Authorization"]; sent {
		t.Errorf("without a token: got Authorization %q, want none", v)
	}
	if v, sent := first["Prefer"]; sent {
		t.Errorf("without a wait: got Prefer %q, want none", v)
	}
	if got, want := second.Get("Prefer"), "wait=1"; got != want {
		t.Errorf("half a second: got Prefer %q, want %q", got, want)
	}
}
