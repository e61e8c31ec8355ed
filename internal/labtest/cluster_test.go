//go:build lab

package labtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// The hosts of the lab, as deploy/demo/cluster makes them.
var (
	schedulers = map[string]string{"s1": "10.77.0.11", "s2": "10.77.0.12", "s3": "10.77.0.13"}
	agents     = map[string]string{"a1": "10.77.0.14", "a2": "10.77.0.15"}
)

const (
	edgeHost    = "e1"
	edgeAddress = "10.77.0.16:80"

	// perHour is the rate limit that deploy/demo/labtest gives the cluster.
	perHour = 5
	// warmPerTemplate is what the templates of the tests keep warm.
	warmPerTemplate = 3
)

// client makes a connection per request: the tests kill servers.
var client = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	},
}

// edgeClient reaches every host name at the edge, as the visitors' DNS would.
var edgeClient = &http.Client{
	Timeout:       30 * time.Second,
	CheckRedirect: client.CheckRedirect,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, edgeAddress)
		},
	},
}

// lab runs a command of deploy/lab/lab.
func lab(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join("..", "..", "deploy", "lab", "lab"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// on runs a shell command on a host.
func on(t testing.TB, host, command string) string {
	t.Helper()
	return strings.TrimSpace(lab(t, "exec", host, "sh", "-c", command))
}

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) decode(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(r.body, into); err != nil {
		t.Fatalf("decode %s: %v", r.body, err)
	}
}

// request describes a call of the API of one scheduler.
type request struct {
	method, scheduler, path string
	body                    string
	visitor                 string // address that the load balancer reports; default: a fresh one
	header                  map[string]string
	admin                   bool
}

var visitors = byte(0)

// freshVisitor returns an address that no rate limit knows yet.
func freshVisitor() string {
	visitors++
	return fmt.Sprintf("203.0.113.%d", visitors)
}

// try calls the API once.
func try(t testing.TB, r request) (reply, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, "http://"+schedulers[r.scheduler]+":8080"+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.visitor == "" {
		r.visitor = freshVisitor()
	}
	req.Header.Set("X-Forwarded-For", r.visitor)
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	if r.admin {
		token, err := os.ReadFile(os.Getenv("DEMOCTL_TOKEN_FILE"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	res, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, body}, err
}

// call calls the API once and fails the test where nobody answers.
func call(t testing.TB, r request) reply {
	t.Helper()
	got, err := try(t, r)
	if err != nil {
		t.Fatalf("%s %s at %s: %v", r.method, r.path, r.scheduler, err)
	}
	return got
}

// within repeats check until it returns nil, and reports its last error where
// the time runs out first.
func within(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		<-tick.C
	}
}

// acquire leases a demo of a template, waiting in line like a patient visitor.
func acquire(t testing.TB, scheduler, template string, more ...string) api.Demo {
	t.Helper()
	body := fmt.Sprintf(`{"template":%q%s}`, template, strings.Join(more, ""))
	var demo api.Demo
	within(t, 60*time.Second, "acquire "+template+" at "+scheduler, func() error {
		got, err := try(t, request{
			method: "POST", scheduler: scheduler, path: "/api/v1/demo/acquire", body: body,
			header: map[string]string{"Prefer": "wait=20", "Idempotency-Key": api.NewRequestID()},
		})
		if err != nil {
			return err
		}
		if got.status != http.StatusCreated {
			return fmt.Errorf("status %d: %s", got.status, got.body)
		}
		got.decode(t, &demo)
		return nil
	})
	return demo
}

func release(t testing.TB, scheduler string, id api.LeaseID) {
	t.Helper()
	within(t, 15*time.Second, "release", func() error {
		got, err := try(t, request{method: "DELETE", scheduler: scheduler, path: "/api/v1/demo/" + string(id)})
		if err == nil && got.status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", got.status, got.body)
		}
		return err
	})
}

// inspect reads a demo at one scheduler.
func inspect(t testing.TB, scheduler string, id api.LeaseID) api.Demo {
	t.Helper()
	got := call(t, request{method: "GET", scheduler: scheduler, path: "/api/v1/demo/" + string(id)})
	if got.status != http.StatusOK {
		t.Fatalf("GET demo at %s: got status %d, want 200: %s", scheduler, got.status, got.body)
	}
	var demo api.Demo
	got.decode(t, &demo)
	return demo
}

// visit requests a page of a demo through the edge.
func visit(t testing.TB, demo api.Demo, method, path string, body io.Reader, header http.Header) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, strings.TrimSuffix(demo.URL, "/")+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := edgeClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s%s through the edge: %v", method, demo.URL, path, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read %s%s: %v", demo.URL, path, err)
	}
	return reply{res.StatusCode, res.Header, data}
}

// admin reads an operators' list.
func admin[T any](t testing.TB, path string) T {
	t.Helper()
	var list T
	within(t, 15*time.Second, "GET "+path, func() error {
		got, err := try(t, request{method: "GET", scheduler: leader(t), path: path, admin: true})
		if err != nil {
			return err
		}
		if got.status != http.StatusOK {
			return fmt.Errorf("status %d: %s", got.status, got.body)
		}
		return json.Unmarshal(got.body, &list)
	})
	return list
}

// leader waits until a scheduler says that it leads, and names it.
func leader(t testing.TB) string {
	t.Helper()
	var name string
	within(t, 15*time.Second, "a leader", func() error {
		for s := range schedulers {
			got, err := try(t, request{method: "GET", scheduler: s, path: "/api/v1/cluster", admin: true})
			if err != nil || got.status != http.StatusOK {
				continue
			}
			var status api.ClusterStatus
			if json.Unmarshal(got.body, &status) == nil && string(status.Leader) == s {
				name = s
				return nil
			}
		}
		return fmt.Errorf("no scheduler leads")
	})
	return name
}

// follower names a scheduler that does not lead.
func follower(t testing.TB) string {
	t.Helper()
	l := leader(t)
	for s := range schedulers {
		if s != l {
			return s
		}
	}
	t.Fatal("no follower")
	return ""
}

// instanceOf finds the instance of a demo.
func instanceOf(t testing.TB, demo api.Demo) api.InstanceStatus {
	t.Helper()
	for _, l := range admin[[]api.LeaseStatus](t, "/api/v1/leases") {
		if strings.HasPrefix(string(demo.ID), strings.TrimRight(l.ID, ".…")) {
			for _, i := range admin[[]api.InstanceStatus](t, "/api/v1/instances") {
				if i.ID == l.Instance {
					return i
				}
			}
		}
	}
	t.Fatalf("demo %s… has no instance", demo.ID[:6])
	return api.InstanceStatus{}
}

// apply applies a template, changed by edit, and waits until it is warm.
func apply(t testing.TB, file string, edit ...string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "images", file, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(edit...).Replace(string(data))
	path := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join("..", "..", "build", "bin", "democtl"), "template", "apply", path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("democtl template apply: %v\n%s", err, out)
	}
}

// stats returns the pool of one template.
func stats(t testing.TB, template string) api.TemplateStats {
	t.Helper()
	var pool api.PoolStats
	got := call(t, request{method: "GET", scheduler: leader(t), path: "/api/v1/pool/stats"})
	got.decode(t, &pool)
	for _, s := range pool.Templates {
		if string(s.Template) == template {
			return s
		}
	}
	t.Fatalf("no template %s in %s", template, got.body)
	return api.TemplateStats{}
}

// warm waits until the pool of a template is full.
func warm(t testing.TB, template string, limit time.Duration) {
	t.Helper()
	within(t, limit, "warm pool of "+template, func() error {
		if s := stats(t, template); s.Warm < s.WarmTarget {
			return fmt.Errorf("%+v; instances: %+v; checkpoints: %+v", s,
				admin[[]api.InstanceStatus](t, "/api/v1/instances"), admin[[]api.TemplateStatus](t, "/api/v1/templates"))
		}
		return nil
	})
}

// event is one server-sent event.
type event struct{ id, name, data string }

// watch reads the status stream of a demo until it ends.
func watch(t testing.TB, scheduler string, id api.LeaseID) <-chan event {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+schedulers[scheduler]+":8080/api/v1/demo/"+string(id)+"/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	stream := &http.Client{Transport: client.Transport}
	res, err := stream.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Fatalf("status stream: got content type %q, want text/event-stream", got)
	}
	events := make(chan event, 256)
	go func() {
		defer close(events)
		defer res.Body.Close()
		var e event
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch key {
			case "":
				if e.name != "" {
					events <- e
				}
				e = event{}
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data += value
			}
		}
	}()
	return events
}

// problem checks that a reply is an RFC 9457 problem with a code.
func problem(t testing.TB, got reply, status int, code api.Code) api.Problem {
	t.Helper()
	if got.status != status {
		t.Fatalf("got status %d, want %d: %s", got.status, status, got.body)
	}
	if ct := got.header.Get("Content-Type"); !strings.HasPrefix(ct, "application/problem+json") {
		t.Errorf("got content type %q, want application/problem+json", ct)
	}
	var p api.Problem
	got.decode(t, &p)
	if p.Code != code || p.Detail == "" || p.RequestID == "" {
		t.Errorf("got problem %+v, want code %s, a detail and a request id", p, code)
	}
	if bytes.Contains(got.body, []byte("goroutine")) {
		t.Errorf("the problem leaks internals: %s", got.body)
	}
	return p
}
