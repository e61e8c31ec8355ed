package devproxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newProxy(t *testing.T) (*Proxy, *httptest.Server) {
	t.Helper()
	p, err := New(Options{ID: "dev", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(p)
	t.Cleanup(func() { s.Close(); p.Close() })
	return p, s
}

// shop answers with its name and the host name and addresses it was given.
func shop(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s for=%s forwarded=%s real=%s", name, r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("Forwarded"), r.Header.Get("X-Real-Ip"))
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func get(t *testing.T, s *httptest.Server, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/x?y=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("X-Forwarded-For", "6.6.6.6")
	req.Header.Set("X-Real-Ip", "6.6.6.6")
	req.Header.Set("Forwarded", "for=6.6.6.6")
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServe(t *testing.T) {
	p, s := newProxy(t)
	a, b := shop(t, "shop-a"), shop(t, "shop-b")
	table := api.RouteTable{
		Term: 1, Generation: 1, Ended: []string{"gone.demo.localhost"},
		Routes: []api.Route{
			{Host: "a.demo.localhost", Instance: "i-a", Upstream: a},
			{Host: "b.demo.localhost", Instance: "i-b", Upstream: b},
			{Host: "bad.demo.localhost", Instance: "i-c", Upstream: "127.0.0.1:0"},
			{Host: "down.demo.localhost", Instance: "i-d", Upstream: "127.0.0.1:1"},
		},
	}
	if err := p.Sync(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		host   string
		status int
		says   string
	}{
		"a":                {"a.demo.localhost", 200, "shop-a a.demo.localhost for=127.0.0.1 forwarded= real="},
		"b with port":      {"b.demo.localhost:8000", 200, "shop-b b.demo.localhost:8000 for=127.0.0.1 forwarded= real="},
		"a in upper case":  {"A.Demo.Localhost", 200, "shop-a"},
		"unknown":          {"c.demo.localhost", 404, "No demo lives here"},
		"parent domain":    {"demo.localhost", 404, "No demo lives here"},
		"longer name":      {"x.a.demo.localhost", 404, "No demo lives here"},
		"ended":            {"gone.demo.localhost", 410, "This demo has ended"},
		"left out":         {"bad.demo.localhost", 404, "No demo lives here"},
		"upstream is down": {"down.demo.localhost", 503, "not answering"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			status, body := get(t, s, test.host)
			if status != test.status || !strings.Contains(body, test.says) {
				t.Errorf("%s: got %d %q, want %d with %q", test.host, status, body, test.status, test.says)
			}
		})
	}
	if got := p.Status(); got.Routes != 3 || !got.Healthy || !strings.Contains(got.Reason, "bad.demo.localhost") {
		t.Errorf("status: got %+v, want 3 routes and the bad one named", got)
	}
}

func TestSyncRefusesOlderTables(t *testing.T) {
	p, _ := newProxy(t)
	tests := []struct {
		name             string
		term, generation uint64
		ok               bool
	}{
		{"first", 2, 5, true},
		{"same again", 2, 5, true},
		{"older generation", 2, 4, false},
		{"older term", 1, 9, false},
		{"newer term starts over", 3, 1, true},
	}
	for _, test := range tests {
		err := p.Sync(t.Context(), api.RouteTable{Term: test.term, Generation: test.generation})
		if test.ok && err != nil || !test.ok && api.CodeOf(err) != api.CodeConflict {
			t.Errorf("%s: got %v, want ok %v", test.name, err, test.ok)
		}
	}
}

// TestSwapNeverCrosses swaps two upstreams under load: each reply comes from
// the shop that one of the two tables names, and hosts keep their own.
func TestSwapNeverCrosses(t *testing.T) {
	p, s := newProxy(t)
	a, b := shop(t, "shop-a"), shop(t, "shop-b")
	table := func(generation uint64) api.RouteTable {
		routes := []api.Route{{Host: "a.x", Instance: "i-a", Upstream: a}, {Host: "b.x", Instance: "i-b", Upstream: b}}
		if generation%2 == 0 {
			routes = routes[:1]
		}
		return api.RouteTable{Term: 1, Generation: generation, Routes: routes}
	}
	if err := p.Sync(t.Context(), table(1)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for g := uint64(2); ctx.Err() == nil; g++ {
			if err := p.Sync(ctx, table(g)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 200 {
		if status, body := get(t, s, "a.x"); status != 200 || !strings.HasPrefix(body, "shop-a ") {
			t.Errorf("a.x: got %d %q", status, body)
		}
		status, body := get(t, s, "b.x")
		if ok := status == 404 || status == 200 && strings.HasPrefix(body, "shop-b "); !ok {
			t.Errorf("b.x: got %d %q", status, body)
		}
	}
	stop()
	wg.Wait()
}
