//go:build lab

package labtest

import (
	"encoding/json"
	"fmt"

	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// TestCluster runs every test on one cluster, in an order that reads like a
// working day.
func TestCluster(t *testing.T) {
	apply(t, "tiny", "warm: 4", fmt.Sprintf("warm: %d", warmPerTemplate))
	warm(t, "tiny", 90*time.Second)

	t.Run("BothNodesRestore", testBothNodesRestore)
	t.Run("TwoVisitorsTwoShops", testTwoVisitorsTwoShops)
	t.Run("RetryGetsTheSameShop", testRetryGetsTheSameShop)
	t.Run("ExtendAndRelease", testExtendAndRelease)
	t.Run("ExpiryOnTime", testExpiryOnTime)
	t.Run("RateLimit", testRateLimit)
	t.Run("BadInput", testBadInput)
	t.Run("LeaderKilled", testLeaderKilled)
	t.Run("SchedulerRestartedFromDisk", testSchedulerRestartedFromDisk)
	t.Run("AgentRestarted", testAgentRestarted)
	t.Run("CaddyRestartedEmpty", testCaddyRestartedEmpty)
	t.Run("ValkeyStoppedAndBack", testValkeyStoppedAndBack)
	t.Run("DiskFullOnAgent", testDiskFullOnAgent)
	t.Run("PortTaken", testPortTaken)
	t.Run("WordPress", testWordPress)
	t.Run("NothingLeftBehind", testNothingLeftBehind)
}

func testBothNodesRestore(t *testing.T) {
	warm(t, "tiny", 60*time.Second)
	restored := map[api.NodeID]bool{}
	for _, i := range admin[[]api.InstanceStatus](t, "/api/v1/instances") {
		if i.State == api.InstanceWarm && i.Checkpoint != "" {
			restored[i.Node] = true
		}
	}
	for a := range agents {
		if !restored[api.NodeID(a)] {
			t.Errorf("node %s has no warm instance made by restore", a)
		}
	}
}

func identityOf(t *testing.T, demo api.Demo) map[string]string {
	t.Helper()
	var id map[string]string
	visit(t, demo, "GET", "/identity", nil, nil).decode(t, &id)
	return id
}

func note(t *testing.T, demo api.Demo) string {
	t.Helper()
	var n map[string]string
	visit(t, demo, "GET", "/note", nil, nil).decode(t, &n)
	if n["memory"] != n["disk"] {
		t.Errorf("the note in memory is %q, on disk %q", n["memory"], n["disk"])
	}
	return n["memory"]
}

func testTwoVisitorsTwoShops(t *testing.T) {
	a, b := acquire(t, leader(t), "tiny"), acquire(t, follower(t), "tiny")
	defer release(t, "s1", a.ID)
	defer release(t, "s1", b.ID)
	if a.ID == b.ID || a.URL == b.URL || a.Credentials.Password == b.Credentials.Password {
		t.Fatalf("two visitors share something: %+v and %+v", a, b)
	}
	ia, ib := identityOf(t, a), identityOf(t, b)
	for _, key := range []string{"instance", "host", "url", "password", "secret"} {
		if ia[key] == "" || ia[key] == ib[key] {
			t.Errorf("%s: got %q and %q, want two different values", key, ia[key], ib[key])
		}
	}
	if ia["nonce"] != ib["nonce"] {
		t.Errorf("the instances come from different memory (%q, %q), so they were not restored from one checkpoint", ia["nonce"], ib["nonce"])
	}
	if got := visit(t, a, "POST", "/note", strings.NewReader("only mine"), nil); got.status != http.StatusNoContent {
		t.Fatalf("write the note: status %d", got.status)
	}
	if got := note(t, a); got != "only mine" {
		t.Errorf("note of a: got %q, want %q", got, "only mine")
	}
	if got := note(t, b); got != "" {
		t.Errorf("note of b: got %q, want none: it sees a's", got)
	}
	for _, c := range []struct {
		name  string
		demo  api.Demo
		creds *api.Credentials
		want  int
	}{{"own", a, a.Credentials, 200}, {"other's", a, b.Credentials, 401}} {
		req, _ := http.NewRequest("GET", "/", nil)
		req.SetBasicAuth(c.creds.Username, c.creds.Password)
		if got := visit(t, c.demo, "GET", "/admin", nil, req.Header); got.status != c.want {
			t.Errorf("back office with %s credentials: got %d, want %d", c.name, got.status, c.want)
		}
	}
}

func testRetryGetsTheSameShop(t *testing.T) {
	r := request{method: "POST", path: "/api/v1/demo/acquire", body: `{"template":"tiny"}`, visitor: freshVisitor(),
		header: map[string]string{"Idempotency-Key": api.NewRequestID(), "Prefer": "wait=20"}}
	var first, second api.Demo
	r.scheduler = leader(t)
	call(t, r).decode(t, &first)
	r.scheduler = follower(t)
	call(t, r).decode(t, &second)
	if first.ID == "" || first.ID != second.ID {
		t.Errorf("the same Idempotency-Key gave %q, then %q", first.ID, second.ID)
	}
	r.body = `{"template":"tiny","ttl":"11m"}`
	problem(t, call(t, r), http.StatusConflict, api.CodeConflict)
	release(t, "s1", first.ID)
}

func testExtendAndRelease(t *testing.T) {
	demo := acquire(t, follower(t), "tiny", `,"ttl":"5m"`)
	instance := instanceOf(t, demo)
	got := call(t, request{method: "POST", scheduler: follower(t), path: "/api/v1/demo/" + string(demo.ID) + "/extend", body: `{"ttl":"20m"}`})
	var extended api.Demo
	got.decode(t, &extended)
	if gain := extended.ExpiresAt.Sub(demo.ExpiresAt); gain < 14*time.Minute {
		t.Errorf("extend moved the end by %s, want about 15m: %s", gain, got.body)
	}
	if page := visit(t, demo, "GET", "/", nil, nil); page.status != 200 {
		t.Errorf("page before release: got %d, want 200", page.status)
	}
	release(t, follower(t), demo.ID)
	if state := inspect(t, leader(t), demo.ID).State; state != api.DemoReleased {
		t.Errorf("state after release: got %s, want released", state)
	}
	problem(t, call(t, request{method: "POST", scheduler: "s1", path: "/api/v1/demo/" + string(demo.ID) + "/extend"}), http.StatusConflict, api.CodeConflict)

	within(t, 30*time.Second, "route gone", func() error {
		if page := visit(t, demo, "GET", "/", nil, nil); page.status != http.StatusGone {
			return fmt.Errorf("the edge answers %d, want 410", page.status)
		}
		return nil
	})
	node := string(instance.Node)
	within(t, 30*time.Second, "container gone", func() error {
		if left := on(t, node, "podman ps -aq --filter label=demo.instance="+string(instance.ID)); left != "" {
			return fmt.Errorf("container %s is still there", left)
		}
		return nil
	})
	within(t, 5*time.Second, "port closed", func() error {
		_, port, _ := strings.Cut(instance.Address, ":")
		if open := on(t, node, "ss -Hltn sport = :"+port); open != "" {
			return fmt.Errorf("port %s is still open: %s", port, open)
		}
		return nil
	})
}

func testExpiryOnTime(t *testing.T) {
	demo := acquire(t, follower(t), "tiny", `,"ttl":"10s"`)
	var last api.Status
	var seen []string
	timeout := time.After(25 * time.Second)
	events := watch(t, follower(t), demo.ID)
	for open := true; open; {
		select {
		case e, ok := <-events:
			if !ok {
				open = false
				break
			}
			seen = append(seen, e.name)
			if err := json.Unmarshal([]byte(e.data), &last); err != nil {
				t.Fatalf("event %+v: %v", e, err)
			}
		case <-timeout:
			t.Fatalf("the stream goes on long after the end; events: %v", seen)
		}
	}
	late := time.Since(demo.ExpiresAt)
	if last.State != api.DemoExpired {
		t.Errorf("last event says %s, want expired; events: %v", last.State, seen)
	}
	if late < -100*time.Millisecond || late > 1500*time.Millisecond {
		t.Errorf("the end was announced %s after the lease was over, want within a second", late)
	}
	if len(seen) < 8 {
		t.Errorf("got %d events in 10 s, want a countdown: %v", len(seen), seen)
	}
	within(t, 2*time.Second, "expired page", func() error {
		if page := visit(t, demo, "GET", "/", nil, nil); page.status != http.StatusGone || !strings.Contains(string(page.body), "<html") {
			return fmt.Errorf("got %d %.80s, want a friendly page with 410", page.status, page.body)
		}
		return nil
	})
	unknown := demo
	unknown.URL = strings.Replace(demo.URL, "://d-", "://x-", 1)
	if page := visit(t, unknown, "GET", "/", nil, nil); page.status != http.StatusNotFound || !strings.Contains(string(page.body), "<html") {
		t.Errorf("unknown host: got %d %.80s, want a friendly page with 404", page.status, page.body)
	}
}

// testRateLimit asks for a template that does not exist: what counts is the
// asking, and no instance is used up.
func testRateLimit(t *testing.T) {
	ask := request{method: "POST", scheduler: follower(t), path: "/api/v1/demo/acquire", body: `{"template":"nosuch"}`, visitor: freshVisitor()}
	for i := range perHour {
		got := call(t, ask)
		problem(t, got, http.StatusNotFound, api.CodeNotFound)
		if want := fmt.Sprintf(`"hour";r=%d`, perHour-1-i); !strings.Contains(got.header.Get("RateLimit"), want) {
			t.Errorf("request %d: RateLimit is %q, want it to contain %s", i+1, got.header.Get("RateLimit"), want)
		}
	}
	got := call(t, ask)
	problem(t, got, http.StatusTooManyRequests, api.CodeLimited)
	if got.header.Get("Retry-After") == "" || !strings.Contains(got.header.Get("RateLimit-Policy"), fmt.Sprintf(`"hour";q=%d;w=3600`, perHour)) {
		t.Errorf("429 has headers %v, want Retry-After and RateLimit-Policy", got.header)
	}
	other := ask
	other.visitor = freshVisitor()
	problem(t, call(t, other), http.StatusNotFound, api.CodeNotFound)

	// The hour passes: its counters are gone from Valkey.
	on(t, edgeHost, `REDISCLI_AUTH=$(sed -n 's/^requirepass //p' /etc/valkey/valkey.conf) valkey-cli FLUSHALL`)
	problem(t, call(t, ask), http.StatusNotFound, api.CodeNotFound)
}

func testBadInput(t *testing.T) {
	const acquirePath = "/api/v1/demo/acquire"
	nobody := "/api/v1/demo/" + string(api.NewLeaseID())
	for _, c := range []struct {
		name   string
		r      request
		status int
		code   api.Code
	}{
		{"malformed JSON", request{method: "POST", path: acquirePath, body: `{"template":`}, 400, api.CodeInvalid},
		{"unknown field", request{method: "POST", path: acquirePath, body: `{"tmeplate":"tiny"}`}, 400, api.CodeInvalid},
		{"unknown template", request{method: "POST", path: acquirePath, body: `{"template":"nosuch"}`}, 404, api.CodeNotFound},
		{"TTL too short", request{method: "POST", path: acquirePath, body: `{"template":"tiny","ttl":"1s"}`}, 400, api.CodeInvalid},
		{"TTL too long", request{method: "POST", path: acquirePath, body: `{"template":"tiny","ttl":"1000h"}`}, 400, api.CodeInvalid},
		{"huge body", request{method: "POST", path: acquirePath, body: `{"template":"` + strings.Repeat("x", 1<<20) + `"}`}, 413, api.CodeInvalid},
		{"over-long key", request{method: "POST", path: acquirePath, header: map[string]string{"Idempotency-Key": strings.Repeat("k", 500)}}, 400, api.CodeInvalid},
		{"no such demo", request{method: "GET", path: nobody}, 404, api.CodeNotFound},
		{"no demo ID at all", request{method: "GET", path: "/api/v1/demo/..%2f..%2fetc"}, 404, api.CodeNotFound},
		{"extend nothing", request{method: "POST", path: nobody + "/extend"}, 404, api.CodeNotFound},
		{"release nothing", request{method: "DELETE", path: nobody}, 404, api.CodeNotFound},
		{"wrong method", request{method: "PATCH", path: acquirePath}, 405, api.CodeInvalid},
		{"no token", request{method: "GET", path: "/api/v1/leases"}, 401, api.CodeUnauthenticated},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, s := range []string{leader(t), follower(t)} {
				c.r.scheduler = s
				problem(t, call(t, c.r), c.status, c.code)
			}
		})
	}
	long := request{method: "GET", scheduler: "s1", path: "/health", header: map[string]string{"X-Long": strings.Repeat("h", 2<<20)}}
	if got, err := try(t, long); err == nil && got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("over-long header: got status %d, want 431 or a closed connection", got.status)
	}
}

var titlePattern = regexp.MustCompile(`<title>([^<]*)</title>`)

// testWordPress leases two shops that nobody here wrote, logs in to both and
// shows that neither knows the other.
func testWordPress(t *testing.T) {
	apply(t, "wordpress", "warm: 4", "warm: 2")
	warm(t, "wordpress", 150*time.Second)
	a, b := acquire(t, follower(t), "wordpress"), acquire(t, leader(t), "wordpress")
	defer release(t, "s1", a.ID)
	defer release(t, "s1", b.ID)
	for _, demo := range []api.Demo{a, b} {
		page := visit(t, demo, "GET", "/", nil, nil)
		if title := titlePattern.FindSubmatch(page.body); page.status != 200 || title == nil {
			t.Fatalf("front page of %s: got %d, title %q", demo.URL, page.status, title)
		}
		if strings.Contains(string(page.body), "golden.invalid") {
			t.Errorf("the page at %s shows the golden copy's host", demo.URL)
		}
	}
	cookies := logIn(t, a, a.Credentials)
	if got := visit(t, a, "GET", "/wp-admin/", nil, cookies); got.status != 200 || !strings.Contains(string(got.body), "Dashboard") {
		t.Errorf("own back office: got %d, want the dashboard", got.status)
	}
	if got := visit(t, b, "GET", "/wp-admin/", nil, cookies); got.status != http.StatusFound {
		t.Errorf("a's cookies at b: got %d, want a redirect to the login", got.status)
	}
	if c := logIn(t, b, a.Credentials); len(c) != 0 {
		t.Errorf("a's password opens b")
	}
}

// logIn returns the headers of a logged-in visitor, or none.
func logIn(t *testing.T, demo api.Demo, creds *api.Credentials) http.Header {
	t.Helper()
	form := url.Values{"log": {creds.Username}, "pwd": {creds.Password}, "wp-submit": {"Log In"}, "testcookie": {"1"}}
	got := visit(t, demo, "POST", "/wp-login.php", strings.NewReader(form.Encode()), http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Cookie":       {"wordpress_test_cookie=WP%20Cookie%20check"},
	})
	if got.status != http.StatusFound {
		return nil
	}
	var pairs []string
	for _, c := range got.header.Values("Set-Cookie") {
		pair, _, _ := strings.Cut(c, ";")
		pairs = append(pairs, pair)
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}
