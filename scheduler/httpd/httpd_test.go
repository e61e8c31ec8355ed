package httpd

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

func TestNewRefusesHoles(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*Options)
	}{
		{"no demos", func(o *Options) { o.Demos = nil }},
		{"no cluster token", func(o *Options) { o.ClusterToken = "" }},
		{"no admin token", func(o *Options) { o.AdminToken = "" }},
		{"no server", func(o *Options) { o.Server = "" }},
		{"no streams", func(o *Options) { o.MaxStreams = 0 }},
		{"no logger", func(o *Options) { o.Logger = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(&node{id: "s1", registry: prometheus.NewRegistry(), demos: &fakeDemos{}, limiter: &fakeLimiter{}, cluster: &fakeCluster{}})
			c.spoil(&o)
			if _, err := New(o); err == nil {
				t.Error("got no error, want one that says what is missing")
			}
		})
	}
}

func TestDemoReplies(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		demo := g.lease(3600e9)
		path := "/api/v1/demo/" + string(demo.ID)
		got := x.do(t, request{method: "GET", path: path})
		if got.status != 200 || got.header.Get("Cache-Control") != "no-store" || got.header.Get(staleHeader) != "" {
			t.Errorf("got %d with %v, want 200, no-store and not stale", got.status, got.header)
		}
		x.demos.stale.Store(true)
		if got := x.do(t, request{method: "GET", path: path}); got.header.Get(staleHeader) != "true" {
			t.Errorf("got %v, want Demo-Stale", got.header)
		}
		if got := x.do(t, request{method: "GET", path: "/api/v1/pool/stats"}); !strings.Contains(got.body, `"templates":[]`) || !strings.Contains(got.body, `"stale":true`) {
			t.Errorf("pool: got %s, want stale and an empty list", got.body)
		}
		problem(t, x.do(t, request{method: "POST", path: path + "/extend", body: `{"ttl":5}`}), 400, api.CodeInvalid)
		for _, r := range []request{
			{method: "GET", path: "/api/v1/demo/..%2f..%2fetc"}, {method: "DELETE", path: "/api/v1/demo/x"},
			{method: "POST", path: "/api/v1/demo/" + string(api.NewLeaseID()) + "/extend"}, {method: "GET", path: "/nothing"}, {method: "GET", path: "/api/v1/demo/a/b/c"},
		} {
			problem(t, x.do(t, r), 404, api.CodeNotFound)
		}
		got = x.do(t, request{method: "PATCH", path: acquirePath})
		if problem(t, got, 405, api.CodeInvalid); !strings.Contains(got.header.Get("Allow"), "POST") {
			t.Errorf("got headers %v, want Allow with POST", got.header)
		}
	})
}

func TestAdmin(t *testing.T) {
	alone(t, func(t *testing.T, _ *group, x *node) {
		token := map[string]string{"Authorization": "Bearer " + adminToken}
		for _, what := range []string{"nodes", "leases", "instances", "templates", "cluster", "templates/shop"} {
			path := "/api/v1/" + what
			for _, wrong := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + adminToken, "Bearer " + clusterToken} {
				problem(t, x.do(t, request{method: "GET", path: path, header: map[string]string{"Authorization": wrong}}), 401, api.CodeUnauthenticated)
			}
			got := x.do(t, request{method: "GET", path: path, header: token})
			if got.status != 200 || strings.Contains(got.body, "null") || !strings.HasPrefix(got.body, "[]") && !strings.HasPrefix(got.body, "{") {
				t.Errorf("%s: got %d %s, want 200 and a list or an object without null", path, got.status, got.body)
			}
		}
		problem(t, x.do(t, request{method: "GET", path: "/api/v1/templates/nosuch", header: token}), 404, api.CodeNotFound)
		for _, c := range []struct {
			name, path, body string
			status           int
		}{
			{"right", "shop", `{"name":"shop","image":"img","port":80}`, 200},
			{"other name", "shop", `{"name":"other","image":"img","port":80}`, 400},
			{"no body", "shop", ``, 400},
			{"not valid", "shop", `{"name":"shop"}`, 400},
			{"unknown field", "shop", `{"name":"shop","colour":"red"}`, 400},
			{"huge", "shop", `{"name":"` + strings.Repeat("x", maxTemplate) + `"}`, 413},
		} {
			if got := x.do(t, request{method: "PUT", path: "/api/v1/templates/" + c.path, body: c.body, header: token}); got.status != c.status {
				t.Errorf("put, %s: got %d %s, want %d", c.name, got.status, got.body, c.status)
			}
		}
	})
}

func TestCORS(t *testing.T) {
	const ours, foreign = "https://shop.example", "https://evil.example"
	preflight := func(origin string) map[string]string {
		return map[string]string{"Origin": origin, "Access-Control-Request-Method": "POST"}
	}
	alone(t, func(t *testing.T, _ *group, x *node) {
		got := x.do(t, request{method: "OPTIONS", path: acquirePath, header: preflight(ours)})
		h := got.header
		if got.status != 204 || h.Get("Access-Control-Allow-Origin") != ours || h.Get("Vary") != "Origin" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Idempotency-Key") || strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("preflight: got %d %v, want 204 that allows POST without credentials", got.status, h)
		}
		got = x.do(t, request{method: "POST", path: acquirePath, header: map[string]string{"Origin": ours}})
		for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id", "Location"} {
			if !strings.Contains(got.header.Get("Access-Control-Expose-Headers"), name) {
				t.Errorf("exposed: got %q, want %s in it", got.header.Get("Access-Control-Expose-Headers"), name)
			}
		}
		for name, r := range map[string]request{
			"foreign preflight": {method: "OPTIONS", path: acquirePath, header: preflight(foreign)},
			"foreign":           {method: "POST", path: acquirePath, header: map[string]string{"Origin": foreign}},
			"prefix":            {method: "POST", path: acquirePath, header: map[string]string{"Origin": ours + ".evil.example"}},
			"null":              {method: "POST", path: acquirePath, header: map[string]string{"Origin": "null"}},
			"none":              {method: "GET", path: "/api/v1/pool/stats"},
		} {
			got := x.do(t, r)
			if got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Vary") != "Origin" || got.status == 204 {
				t.Errorf("%s: got %d %v, want only Vary: Origin", name, got.status, got.header)
			}
		}
		if got := x.do(t, request{method: "OPTIONS", path: "/api/v1/leases", header: preflight(ours)}); got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("admin: got %v, want no CORS headers", got.header)
		}
		if got := x.do(t, request{method: "OPTIONS", path: acquirePath, header: map[string]string{"Origin": ours}}); got.status != 405 || got.header.Get("Access-Control-Allow-Origin") != ours {
			t.Errorf("an error of a page of ours: got %d %v, want 405 that the page can read", got.status, got.header)
		}
	}, func(o *Options) { o.CORSOrigins = []string{ours} })
}

func TestEveryRouteIsInTheIndex(t *testing.T) {
	alone(t, func(t *testing.T, _ *group, x *node) {
		err := chi.Walk(x.server.handler.(chi.Router), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
			found := route == "/"
			for line := range strings.Lines(endpoints) {
				words := strings.Fields(line)
				found = found || len(words) > 2 && words[0] == method && words[1] == route
			}
			if !found {
				t.Errorf("%s %s is not listed", method, route)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := x.do(t, request{method: "GET", path: "/"}); got.status != 200 || got.body != endpoints || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("got %d %v, want the list", got.status, got.header)
		}
		for _, path := range []string{"/health", "/health/live", "/health/ready", "/metrics"} {
			if got := x.do(t, request{method: "GET", path: path}); got.status != 200 || got.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: got %d %v, want 200 and nosniff", path, got.status, got.header)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		for range 6 {
			p.s2.do(t, p.acquire)
		}
		got := p.s2.do(t, request{method: "GET", path: "/metrics"}).body
		for _, want := range []string{`demo_http_forward_seconds_count{result="ok"} 5`, "demo_http_limited_total 1", "demo_http_streams 0", `route="/api/v1/demo/acquire"`} {
			if !strings.Contains(got, want) {
				t.Errorf("metrics lack %s", want)
			}
		}
	})
}

// TestForwardOnRealConnections has two schedulers on real sockets.
func TestForwardOnRealConnections(t *testing.T) {
	g := newGroup("s1")
	n := newNetwork()
	s1, s2 := start(t, n, g, "s1"), start(t, n, g, "s2")
	leader, follower := httptest.NewServer(s1.server), httptest.NewServer(s2.server)
	defer leader.Close()
	defer follower.Close()
	s2.server.forwarder.cluster = leaderAt{s2.cluster, leader.URL}
	s2.server.forwarder.transport.DialContext = (&net.Dialer{}).DialContext
	for range 3 {
		res, err := follower.Client().Post(follower.URL+acquirePath, "application/json", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		if _ = res.Body.Close(); res.StatusCode != 201 {
			t.Errorf("got %d, want 201", res.StatusCode)
		}
	}
	// Larger than what the server reads on: the reply must arrive all the same.
	res, err := follower.Client().Post(follower.URL+acquirePath, "application/json", strings.NewReader(strings.Repeat("x", 4<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != 413 {
		t.Errorf("huge body: got %d, want 413", res.StatusCode)
	}
	follower.Client().CloseIdleConnections()
	s2.server.Close()
}

type leaderAt struct {
	Cluster
	url string
}

func (l leaderAt) LeaderURL() (string, bool) { return l.url, true }
