package edge

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newDriver(t *testing.T, admin string, change ...func(*Options)) *Caddy {
	t.Helper()
	o := Options{ID: "e1", Admin: admin, Listen: []string{":80"}, VerifyEvery: time.Hour, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewPedanticRegistry()}
	for _, f := range change {
		f(&o)
	}
	c, err := NewCaddy(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verifyAlways makes every Sync compare the real routes.
func verifyAlways(o *Options) { o.VerifyEvery = time.Nanosecond }

func route(name string, port int) api.Route {
	return api.Route{Host: name + ".demo.localhost", Instance: api.InstanceID("i-" + name), Upstream: fmt.Sprintf("10.0.0.1:%d", port)}
}

func table(term, generation uint64, routes ...api.Route) api.RouteTable {
	return api.RouteTable{Term: term, Generation: generation, Routes: routes}
}

func mustSync(t *testing.T, c *Caddy, table api.RouteTable) {
	t.Helper()
	if err := c.Sync(t.Context(), table); err != nil {
		t.Fatalf("sync term %d generation %d: %v", table.Term, table.Generation, err)
	}
}

func wantRoutes(t *testing.T, c *Caddy, want ...api.Route) {
	t.Helper()
	got, err := c.Routes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes on the edge (-want +got):\n%s", diff)
	}
}

func TestSyncTakesTheFewestRequests(t *testing.T) {
	f := newFakeCaddy(t)
	c := newDriver(t, f.URL)
	a, b, d, e := route("a", 1), route("b", 2), route("d", 4), route("e", 5)
	ended := table(1, 6, a)
	ended.Ended = []string{"b.demo.localhost"}
	tests := []struct {
		name  string
		table api.RouteTable
		write string // empty: none
	}{
		{"an empty Caddy is initialised", table(1, 1, a, d), "PUT " + serverPath},
		{"nothing changed", table(1, 1, a, d), ""},
		{"only the generation rose", table(1, 2, a, d), ""},
		{"one more", table(1, 3, a, b, d), "PUT " + serverPath + "/routes/2"},
		{"nothing changed after it", table(1, 3, a, b, d), ""},
		{"one more at the end", table(1, 3, a, b, d, e), "PUT " + serverPath + "/routes/4"},
		{"one less", table(1, 4, a, b, e), "DELETE /id/demo-i-d"},
		{"two less", table(1, 5, a), "PATCH " + serverPath},
		{"one ended", ended, "PATCH " + serverPath},
		{"a new leader leaves its marker", table(2, 1, a), "PATCH " + serverPath},
		{"one moved", table(2, 2, api.Route{Host: a.Host, Instance: "i-z", Upstream: "10.0.0.2:9"}), "PATCH " + serverPath},
		{"none left", table(2, 3), "DELETE /id/demo-i-z"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			mustSync(t, c, test.table)
			requests := f.taken()
			var writes []string
			for _, r := range requests {
				if !strings.HasPrefix(r, "GET ") {
					writes = append(writes, r)
				}
			}
			if got := strings.Join(writes, ", "); got != test.write {
				t.Errorf("writes: got %q, want %q", got, test.write)
			}
			if test.write == "" && len(requests) != 1 {
				t.Errorf("requests: got %v, want only the marker", requests)
			}
			wantRoutes(t, c, test.table.Routes...)
			f.taken()
		})
	}
	if got := testutil.ToFloat64(c.metrics.repairs); got != 0 {
		t.Errorf("repairs: got %v, want 0", got)
	}
}

func TestRepair(t *testing.T) {
	routes := serverPath + "/routes"
	tests := map[string]func(*testing.T, *fakeCaddy){
		"restarted empty":        func(_ *testing.T, f *fakeCaddy) { f.restart() },
		"restarted with its own": func(t *testing.T, f *fakeCaddy) { f.edit(t, "POST", "/config/", `{"admin":{}}`) },
		"server deleted":         func(t *testing.T, f *fakeCaddy) { f.edit(t, "DELETE", serverPath, "") },
		"route deleted":          func(t *testing.T, f *fakeCaddy) { f.edit(t, "DELETE", routes+"/1", "") },
		"upstream changed": func(t *testing.T, f *fakeCaddy) {
			f.edit(t, "PATCH", routes+"/1/handle/0/upstreams/0/dial", `"10.6.6.6:1"`)
		},
		"foreign route added": func(t *testing.T, f *fakeCaddy) {
			f.edit(t, "PUT", routes+"/0", `{"handle":[{"handler":"static_response"}]}`)
		},
		"foreign shape added":     func(t *testing.T, f *fakeCaddy) { f.edit(t, "PUT", routes+"/0", `{"match":"x"}`) },
		"marker deleted":          func(t *testing.T, f *fakeCaddy) { f.edit(t, "DELETE", routes+"/0", "") },
		"marker made nonsense":    func(t *testing.T, f *fakeCaddy) { f.edit(t, "PATCH", routes+"/0/handle", `"x"`) },
		"listens somewhere else":  func(t *testing.T, f *fakeCaddy) { f.edit(t, "PATCH", serverPath+"/listen", `[":81"]`) },
		"error pages deleted":     func(t *testing.T, f *fakeCaddy) { f.edit(t, "DELETE", serverPath+"/errors", "") },
		"older table was resumed": func(t *testing.T, f *fakeCaddy) { f.edit(t, "PATCH", routes+"/0/handle/0/demo_generation", `"1"`) },
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeCaddy(t)
			c := newDriver(t, f.URL, verifyAlways)
			want := table(3, 2, route("a", 1), route("b", 2))
			mustSync(t, c, want)
			before := f.value(serverPath)
			damage(t, f)
			mustSync(t, c, want)
			if diff := cmp.Diff(before, f.value(serverPath)); diff != "" {
				t.Errorf("server after repair (-want +got):\n%s", diff)
			}
			if got := testutil.ToFloat64(c.metrics.repairs); got != 1 {
				t.Errorf("repairs: got %v, want 1", got)
			}
			f.taken()
			mustSync(t, c, want)
			if got := f.taken(); slices.ContainsFunc(got, func(r string) bool { return !strings.HasPrefix(r, "GET ") }) {
				t.Errorf("after the repair: got %v, want no write", got)
			}
		})
	}
}

func TestOtherServersStay(t *testing.T) {
	f := newFakeCaddy(t)
	f.edit(t, "POST", "/config/", `{"admin":{"listen":"x"},"apps":{"http":{"servers":{"own":{"listen":[":8443"]}}},"tls":{}}}`)
	c := newDriver(t, f.URL, verifyAlways)
	mustSync(t, c, table(1, 1, route("a", 1)))
	mustSync(t, c, table(1, 2))
	if diff := cmp.Diff(any(map[string]any{"listen": []any{":8443"}}), f.value("/config/apps/http/servers/own")); diff != "" {
		t.Errorf("other server (-want +got):\n%s", diff)
	}
	if f.value("/config/admin") == nil || f.value("/config/apps/tls") == nil {
		t.Error("other parts of the configuration are gone")
	}
}

func TestFencing(t *testing.T) {
	tests := []struct {
		name             string
		term, generation uint64
		ok               bool
	}{
		{"older term", 4, 99, false},
		{"older generation", 5, 6, false},
		{"same", 5, 7, true},
		{"newer generation", 5, 8, true},
		{"newer term", 6, 1, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeCaddy(t)
			mustSync(t, newDriver(t, f.URL), table(5, 7, route("a", 1)))
			other := newDriver(t, f.URL)
			err := other.Sync(t.Context(), table(test.term, test.generation, route("b", 2)))
			if test.ok {
				if err != nil {
					t.Fatal(err)
				}
				wantRoutes(t, other, route("b", 2))
				return
			}
			if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "term 5 generation 7") {
				t.Errorf("got %v, want a conflict that names term 5 generation 7", err)
			}
			if other.Status().Healthy {
				t.Error("status is healthy after a refusal")
			}
			wantRoutes(t, other, route("a", 1))
		})
	}
}

// TestFencingBetweenReadAndWrite: a newer leader pushes after the old one has
// read everything; its write must fail, and its second look must respect the
// newer table.
func TestFencingBetweenReadAndWrite(t *testing.T) {
	f := newFakeCaddy(t)
	old := newDriver(t, f.URL)
	mustSync(t, old, table(5, 1, route("a", 1)))
	f.behave(func() {
		f.before = func(*change) {
			p := old.renderer.plan(table(6, 1, route("b", 2)))
			body := string(old.renderer.server(p, marker{order: p.order, Digest: p.digest}))
			f.mu.Unlock()
			f.edit(t, "PATCH", serverPath, body)
			f.mu.Lock()
		}
	})
	err := old.Sync(t.Context(), table(5, 2, route("c", 3), route("d", 4)))
	if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "term 6") {
		t.Errorf("got %v, want a conflict that names term 6", err)
	}
	wantRoutes(t, old, route("b", 2))
}

func TestConcurrentWriter(t *testing.T) {
	meddle := func(t *testing.T, f *fakeCaddy, listen string) func(*change) {
		return func(*change) {
			f.mu.Unlock()
			f.edit(t, "PATCH", serverPath+"/listen", listen)
			f.mu.Lock()
		}
	}
	t.Run("once: read again", func(t *testing.T) {
		f := newFakeCaddy(t)
		c := newDriver(t, f.URL)
		mustSync(t, c, table(1, 1, route("a", 1)))
		f.behave(func() { f.before = meddle(t, f, `[":81"]`) })
		mustSync(t, c, table(1, 2, route("a", 1), route("b", 2)))
		wantRoutes(t, c, route("a", 1), route("b", 2))
		if diff := cmp.Diff(any([]any{":80"}), f.value(serverPath+"/listen")); diff != "" {
			t.Errorf("listen (-want +got):\n%s", diff)
		}
	})
	t.Run("again and again: refuse", func(t *testing.T) {
		f := newFakeCaddy(t)
		c := newDriver(t, f.URL)
		mustSync(t, c, table(1, 1, route("a", 1)))
		f.behave(func() {
			f.before = func(ch *change) {
				meddle(t, f, `[":81"]`)(ch)
				f.before = meddle(t, f, `[":82"]`)
			}
		})
		err := c.Sync(t.Context(), table(1, 2, route("b", 2)))
		if api.CodeOf(err) != api.CodeConflict {
			t.Errorf("got %v, want a conflict", err)
		}
		mustSync(t, c, table(1, 2, route("b", 2)))
		wantRoutes(t, c, route("b", 2))
	})
}

func TestLostReply(t *testing.T) {
	f := newFakeCaddy(t)
	c := newDriver(t, f.URL)
	mustSync(t, c, table(1, 1, route("a", 1)))
	f.behave(func() { f.broken = true })
	if err := c.Sync(t.Context(), table(1, 2, route("b", 2))); err == nil {
		t.Error("a lost reply: got no error")
	}
	f.behave(func() { f.broken = false })
	mustSync(t, c, table(1, 2, route("b", 2)))
	wantRoutes(t, c, route("b", 2))
}

func TestUnreachable(t *testing.T) {
	f := newFakeCaddy(t)
	c := newDriver(t, f.URL)
	mustSync(t, c, table(1, 1, route("a", 1)))
	for _, method := range []string{http.MethodGet, http.MethodPatch} {
		f.behave(func() { f.fail = map[string]int{method: http.StatusInternalServerError} })
		err := c.Sync(t.Context(), table(1, 2))
		if method == http.MethodPatch {
			err = c.Sync(t.Context(), table(1, 3, route("x", 1), route("y", 2)))
		}
		if err == nil || !strings.Contains(err.Error(), "told to fail") {
			t.Errorf("%s fails: got %v, want Caddy's words", method, err)
		}
		if s := c.Status(); s.Healthy || s.Reason == "" {
			t.Errorf("%s fails: got status %+v, want unhealthy with a reason", method, s)
		}
		f.behave(func() { f.fail = nil })
	}
	f.Close()
	if err := c.Sync(t.Context(), table(1, 4)); err == nil {
		t.Error("closed: got no error")
	}
}

func TestBadRoutesAreLeftOut(t *testing.T) {
	f := newFakeCaddy(t)
	c := newDriver(t, f.URL)
	bad := route("b", 0)
	taken := api.Route{Host: "t.demo.localhost", Instance: "table", Upstream: "10.0.0.1:5"}
	mustSync(t, c, table(1, 1, route("a", 1), bad, taken))
	wantRoutes(t, c, route("a", 1))
	s := c.Status()
	if !s.Healthy || s.Routes != 1 || !strings.Contains(s.Reason, bad.Host) || !strings.Contains(s.Reason, taken.Host) {
		t.Errorf("status: got %+v, want healthy, 1 route, and both bad ones named", s)
	}
	if got := testutil.ToFloat64(c.metrics.skipped); got != 2 {
		t.Errorf("skipped: got %v, want 2", got)
	}
}

func TestRemove(t *testing.T) {
	f := newFakeCaddy(t)
	c := newDriver(t, f.URL)
	want := table(1, 1, route("a", 1), route("b", 2))
	if err := c.Remove(t.Context(), "i-a"); err != nil {
		t.Errorf("remove from an empty Caddy: %v", err)
	}
	mustSync(t, c, want)
	for range 2 {
		if err := c.Remove(t.Context(), "i-a"); err != nil {
			t.Fatal(err)
		}
		wantRoutes(t, c, route("b", 2))
	}
	if err := c.Remove(t.Context(), "../../config"); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("remove by a path: got %v, want invalid", err)
	}
	mustSync(t, c, want)
	wantRoutes(t, c, route("a", 1), route("b", 2))
}

// TestSyncConverges drives random tables, edits and restarts: after a Sync the
// edge always equals the table.
func TestSyncConverges(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newFakeCaddy(t)
	c := newDriver(t, f.URL, verifyAlways)
	for generation := range uint64(300) {
		tb := table(1+generation/100, generation)
		for i := range 6 {
			if rng.IntN(2) == 0 {
				tb.Routes = append(tb.Routes, route(string(rune('a'+i)), 1+rng.IntN(2)))
			}
		}
		if rng.IntN(4) == 0 {
			tb.Ended = []string{"z.demo.localhost"}
		}
		switch rng.IntN(6) {
		case 0:
			f.restart()
		case 1:
			if f.value(serverPath+"/routes/1") != nil {
				f.edit(t, http.MethodDelete, serverPath+"/routes/1", "")
			}
		}
		mustSync(t, c, tb)
		wantRoutes(t, c, tb.Routes...)
		if t.Failed() {
			t.Fatalf("generation %d", generation)
		}
	}
}

func TestCallsTakeTurns(t *testing.T) {
	f := newFakeCaddy(t)
	c := newDriver(t, f.URL)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := c.Sync(t.Context(), table(uint64(i+1), 1, route("a", i+1))); err != nil && api.CodeOf(err) != api.CodeConflict {
				t.Error(err)
			}
		})
		wg.Go(func() { _ = c.Status() })
	}
	wg.Wait()
	wantRoutes(t, c, route("a", 8))
}

func TestSyncEndsWithItsContext(t *testing.T) {
	c := newDriver(t, newFakeCaddy(t).URL)
	c.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Sync(ctx, table(1, 1)); err == nil {
		t.Error("got no error while another push runs and the context is done")
	}
}

func TestNewCaddyRefusesBadOptions(t *testing.T) {
	good := Options{ID: "e1", Admin: "http://127.0.0.1:2019", Listen: []string{":80"}, Logger: slog.New(slog.DiscardHandler)}
	tests := map[string]struct {
		change func(*Options)
		ok     bool
	}{
		"good":          {func(*Options) {}, true},
		"unix":          {func(o *Options) { o.Admin = "unix:///run/caddy/admin.sock" }, true},
		"no id":         {func(o *Options) { o.ID = "" }, false},
		"no listen":     {func(o *Options) { o.Listen = nil }, false},
		"no logger":     {func(o *Options) { o.Logger = nil }, false},
		"no scheme":     {func(o *Options) { o.Admin = "127.0.0.1:2019" }, false},
		"https":         {func(o *Options) { o.Admin = "https://127.0.0.1:2019" }, false},
		"unix, no path": {func(o *Options) { o.Admin = "unix://" }, false},
		"unix, host":    {func(o *Options) { o.Admin = "unix://run/caddy.sock" }, false},
		"path":          {func(o *Options) { o.Admin = "http://127.0.0.1:2019/config" }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := good
			test.change(&o)
			if _, err := NewCaddy(o); (err == nil) != test.ok {
				t.Errorf("got %v, want ok %v", err, test.ok)
			}
		})
	}
}
