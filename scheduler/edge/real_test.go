//go:build integration

package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/edge/page"
)

const (
	// startDeadline bounds the start of a Caddy on a busy machine.
	startDeadline = 20 * time.Second
	// pushPause is the pause between pushes that the leader keeps.
	pushPause = 100 * time.Millisecond
)

// realCaddy is a Caddy process of this test, on a socket and a loopback port.
type realCaddy struct {
	t       *testing.T
	dir     string
	admin   string
	visitor string // address for visitors
	cmd     *exec.Cmd
	log     *bytes.Buffer
}

func startCaddy(t *testing.T) *realCaddy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &realCaddy{t: t, dir: dir, admin: "unix://" + filepath.Join(dir, "admin.sock"), visitor: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"admin":{"listen":"unix/%s","config":{"persist":false}},"logging":{"logs":{"default":{"level":"WARN"}}}}`, filepath.Join(dir, "admin.sock"))
	if err := os.WriteFile(filepath.Join(dir, "caddy.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(r.kill)
	return r
}

func (r *realCaddy) start() {
	r.t.Helper()
	binary := os.Getenv("CADDY")
	if binary == "" {
		binary = "caddy"
	}
	path, err := exec.LookPath(binary)
	if err != nil {
		r.t.Fatalf("these tests need Caddy (Debian: apt-get install caddy): %v", err)
	}
	r.log = &bytes.Buffer{}
	r.cmd = exec.Command(path, "run", "--config", filepath.Join(r.dir, "caddy.json"))
	r.cmd.Env = append(os.Environ(), "HOME="+r.dir, "XDG_CONFIG_HOME="+r.dir, "XDG_DATA_HOME="+r.dir)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	adm, err := newAdmin(r.admin, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	deadline := time.Now().Add(startDeadline)
	for {
		_, _, err := adm.do(r.t.Context(), http.MethodGet, rootPath, nil, "")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.kill()
			r.t.Fatalf("caddy does not answer: %v\n%s", err, r.log)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// kill ends the process without a chance to tidy up. A socket file stays.
func (r *realCaddy) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
	_ = os.Remove(filepath.Join(r.dir, "admin.sock"))
}

// write changes the configuration by hand, unconditionally.
func (r *realCaddy) write(method, path, body string) {
	r.t.Helper()
	adm, err := newAdmin(r.admin, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	var b []byte
	if body != "" {
		b = []byte(body)
	}
	if _, _, err := adm.do(r.t.Context(), method, path, b, ""); err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
}

func (r *realCaddy) driver(change ...func(*Options)) *Caddy {
	r.t.Helper()
	return newDriver(r.t, r.admin, append([]func(*Options){func(o *Options) { o.Listen = []string{r.visitor} }}, change...)...)
}

// visit asks for a page as a visitor of host.
func (r *realCaddy) visit(ctx context.Context, client *http.Client, host string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.visitor+"/", nil)
	if err != nil {
		return nil, "", err
	}
	req.Host = host
	req.Header.Set("X-Forwarded-For", "6.6.6.6")
	req.Header.Set("X-Real-Ip", "6.6.6.6")
	req.Header.Set("Forwarded", "for=6.6.6.6")
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func (r *realCaddy) mustVisit(host string) (*http.Response, string) {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, body, err := r.visit(r.t.Context(), client, host)
	if err != nil {
		r.t.Fatalf("visit %s: %v\n%s", host, err, r.log)
	}
	return resp, body
}

// shop is an instance that says its name and what it was told.
func shop(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{
			"shop": name, "host": r.Host, "for": r.Header.Get("X-Forwarded-For"), "proto": r.Header.Get("X-Forwarded-Proto"),
			"fhost": r.Header.Get("X-Forwarded-Host"), "real": r.Header.Get("X-Real-Ip"), "forwarded": r.Header.Get("Forwarded"),
		})
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func shopRoute(name, upstream string) api.Route {
	return api.Route{Host: name + ".demo.localhost", Instance: api.InstanceID("i-" + name), Upstream: upstream}
}

func TestRealPages(t *testing.T) {
	r := startCaddy(t)
	c := r.driver()
	want := table(1, 1, shopRoute("a", shop(t, "shop-a")), shopRoute("down", "127.0.0.1:1"))
	want.Ended = []string{"gone.demo.localhost"}
	mustSync(t, c, want)
	tests := map[string]struct {
		host   string
		status int
		body   string // empty: the shop
		retry  string
	}{
		"live":             {"a.demo.localhost", 200, "", ""},
		"live with port":   {"a.demo.localhost:8080", 200, "", ""},
		"live, upper case": {"A.DEMO.localhost", 200, "", ""},
		"unknown":          {"nobody.demo.localhost", 404, page.Unknown().Body, ""},
		"parent":           {"demo.localhost", 404, page.Unknown().Body, ""},
		"below a demo":     {"x.a.demo.localhost", 404, page.Unknown().Body, ""},
		"an address":       {"127.0.0.1", 404, page.Unknown().Body, ""},
		"the marker":       {markerHost, 404, page.Unknown().Body, ""},
		"a placeholder":    {"{http.request.host}", 404, page.Unknown().Body, ""},
		"ended":            {"gone.demo.localhost", 410, page.Ended().Body, ""},
		"ended with port":  {"gone.demo.localhost:80", 410, page.Ended().Body, ""},
		"upstream down":    {"down.demo.localhost", 503, page.Down().Body, "5"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			resp, body := r.mustVisit(test.host)
			if resp.StatusCode != test.status {
				t.Errorf("status of %s: got %d, want %d", test.host, resp.StatusCode, test.status)
			}
			if test.body != "" && body != test.body {
				t.Errorf("page of %s: got\n%s", test.host, body)
			}
			if got := resp.Header.Get("Retry-After"); got != test.retry {
				t.Errorf("Retry-After: got %q, want %q", got, test.retry)
			}
			if test.body != "" {
				return
			}
			var got map[string]string
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if got["shop"] != "shop-a" || got["host"] != test.host || got["for"] != "127.0.0.1" || got["proto"] != "http" ||
				got["fhost"] != test.host || got["real"] != "" || got["forwarded"] != "" {
				t.Errorf("the shop was told %v", got)
			}
		})
	}
	wantRoutes(t, c, want.Routes...)
	mustSync(t, c, table(1, 2)) // the last route and the last ended host go
	if resp, _ := r.mustVisit("gone.demo.localhost"); resp.StatusCode != 404 {
		t.Errorf("forgotten host: got %d, want 404", resp.StatusCode)
	}
}

func TestRealSingleChanges(t *testing.T) {
	r := startCaddy(t)
	c := r.driver(verifyAlways)
	a, b, d := shopRoute("a", shop(t, "shop-a")), shopRoute("b", shop(t, "shop-b")), shopRoute("d", shop(t, "shop-d"))
	for i, routes := range [][]api.Route{{b}, {a, b}, {a, b, d}, {a, d}, {d}, {a, b, d}, {}} {
		mustSync(t, c, table(1, uint64(i+1), routes...))
		mustSync(t, c, table(1, uint64(i+1), routes...)) // compares with what Caddy really has
		wantRoutes(t, c, append([]api.Route(nil), routes...)...)
	}
	if got := testutil.ToFloat64(c.metrics.repairs); got != 0 {
		t.Errorf("repairs: got %v, want 0: a push and its comparison disagree", got)
	}
}

func TestRealRepair(t *testing.T) {
	r := startCaddy(t)
	c := r.driver(verifyAlways)
	want := table(1, 1, shopRoute("a", shop(t, "shop-a")), shopRoute("b", shop(t, "shop-b")))
	damages := []struct {
		name string
		do   func()
	}{
		{"killed and restarted empty", func() { r.kill(); r.start() }},
		{"everything removed", func() { r.write("DELETE", "/config/apps", "") }},
		{"a route removed by hand", func() { r.write("DELETE", "/id/demo-i-a", "") }},
		{"an upstream swapped by hand", func() {
			r.write("PATCH", "/id/demo-i-a/handle/0/upstreams", `[{"dial":"`+want.Routes[1].Upstream+`"}]`)
		}},
		{"another server beside ours", func() { r.write("PUT", "/config/apps/http/servers/own", `{"listen":["127.0.0.1:0"]}`) }},
	}
	mustSync(t, c, want)
	for i, d := range damages {
		d.do()
		mustSync(t, c, want)
		if resp, body := r.mustVisit("a.demo.localhost"); resp.StatusCode != 200 || !strings.Contains(body, "shop-a") {
			t.Errorf("%s: got %d %s, want shop-a", d.name, resp.StatusCode, body)
		}
		want.Generation++
		mustSync(t, c, want)
		if i == len(damages)-1 {
			if got := testutil.ToFloat64(c.metrics.repairs); got != float64(len(damages)-1) {
				t.Errorf("repairs: got %v, want %d: another server is no damage", got, len(damages)-1)
			}
		}
	}
}

// TestRealConcurrentWriters lets two drivers and an operator write at once. A
// conflict is fine; a lost or mixed table is not.
func TestRealConcurrentWriters(t *testing.T) {
	r := startCaddy(t)
	up := shop(t, "shop")
	old, young := r.driver(verifyAlways), r.driver(verifyAlways)
	const pushes = 15
	var wg sync.WaitGroup
	push := func(c *Caddy, term uint64, name string) {
		for g := range uint64(pushes) {
			var routes []api.Route
			for i := range g%3 + 1 {
				routes = append(routes, shopRoute(fmt.Sprintf("%s%d", name, i), up))
			}
			if err := c.Sync(context.Background(), table(term, g+1, routes...)); err != nil && api.CodeOf(err) != api.CodeConflict {
				t.Errorf("term %d generation %d: %v", term, g+1, err)
			}
		}
	}
	wg.Go(func() { push(old, 1, "old") })
	wg.Go(func() { push(young, 2, "young") })
	wg.Go(func() {
		for range pushes {
			_, _, _ = young.admin.do(context.Background(), http.MethodPost, "/config/apps/http/servers/own", []byte(`{"listen":["127.0.0.1:0"]}`), "")
		}
	})
	wg.Wait()
	last := table(2, pushes+1, shopRoute("young", up))
	mustSync(t, young, last)
	wantRoutes(t, young, last.Routes...)
	if err := old.Sync(t.Context(), table(1, pushes+1, shopRoute("old", up))); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("the old leader: got %v, want a conflict", err)
	}
	wantRoutes(t, young, last.Routes...)
}

// TestRealPushesUnderLoad pushes every 100 ms while visitors come on new
// connections: none sees an error, and none sees another host's shop even
// though the two hosts swap their upstreams all the time.
func TestRealPushesUnderLoad(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	r := startCaddy(t)
	c := r.driver()
	one, two := shop(t, "one"), shop(t, "two")
	stays := shopRoute("stays", shop(t, "stays"))
	tables := []api.RouteTable{
		table(1, 0, shopRoute("a", one), shopRoute("b", two), stays),
		table(1, 0, shopRoute("a", two), shopRoute("b", one), stays),
	}
	mustSync(t, c, tables[0])
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	visits := 0
	visitors := func(host string, allowed ...string) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for ctx.Err() == nil {
			resp, body, err := r.visit(context.Background(), client, host)
			ok := err == nil && resp.StatusCode == 200
			if ok {
				ok = false
				for _, name := range allowed {
					ok = ok || strings.Contains(body, `"shop":"`+name+`"`) && strings.Contains(body, `"host":"`+host+`"`)
				}
			}
			if !ok {
				t.Errorf("%s: got %v %s", host, err, body)
			}
			mu.Lock()
			visits++
			mu.Unlock()
		}
	}
	wg.Go(func() { visitors("stays.demo.localhost", "stays") })
	wg.Go(func() { visitors("a.demo.localhost", "one", "two") })
	const pushes = 20
	for g := range uint64(pushes) {
		<-time.After(pushPause)
		next := tables[(g+1)%2]
		next.Generation = g + 1
		mustSync(t, c, next)
		// After a push only the new table is served.
		want := []string{"two", "one"}[g%2]
		if _, body := r.mustVisit("a.demo.localhost"); !strings.Contains(body, `"shop":"`+want+`"`) {
			t.Errorf("after push %d: got %s, want %s", g, body, want)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d visits during %d pushes", visits, pushes)
}

// TestRealStreamsAreFlushed: a reply without a length reaches the visitor as
// it is written.
func TestRealStreamsAreFlushed(t *testing.T) {
	r := startCaddy(t)
	next := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		<-next
	}))
	defer s.Close()
	defer close(next)
	mustSync(t, r.driver(), table(1, 1, shopRoute("a", strings.TrimPrefix(s.URL, "http://"))))
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.visitor+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "a.demo.localhost"
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	line := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "first\n" {
		t.Errorf("got %q, %v before the reply ended, want the first line", line, err)
	}
}

// TestRealCost prints what a push costs; it fails only where a push fails.
func TestRealCost(t *testing.T) {
	r := startCaddy(t)
	c := r.driver(func(o *Options) { o.VerifyEvery = time.Hour })
	for generation, n := range []int{10, 100, 1000} {
		tb := api.RouteTable{Term: 1, Generation: uint64(generation + 1)}
		for i := range n {
			tb.Routes = append(tb.Routes, api.Route{Host: fmt.Sprintf("d-%06d.demo.localhost", i), Instance: api.InstanceID(fmt.Sprintf("i-%06d", i)), Upstream: fmt.Sprintf("10.0.0.1:%d", 1+i)})
		}
		took := func(what string, tb api.RouteTable) {
			start := time.Now()
			mustSync(t, c, tb)
			t.Logf("%5d routes, %s: %s", n, what, time.Since(start).Round(10*time.Microsecond))
		}
		took("all", tb)
		took("unchanged", tb)
		less := tb
		less.Routes = tb.Routes[:n-1]
		took("one less", less)
		took("one more", tb)
		c.known.verified = time.Time{}
		took("compared", tb)
	}
}
