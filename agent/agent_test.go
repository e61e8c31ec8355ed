package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const testToken = "0123456789abcdef0123456789abcdef"

// testOptions are valid options of an agent with the page runtime, all on
// loopback ports that were free a moment ago.
func testOptions(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	o := DefaultOptions()
	o.ID, o.DataDir, o.Runtime, o.TokenFile = "a1", filepath.Join(dir, "data"), RuntimePage, filepath.Join(dir, "token")
	o.HTTP = HTTPOptions{Listen: addresses[0], Advertise: addresses[0]}
	o.Gossip = GossipOptions{Listen: addresses[1], Advertise: addresses[1]}
	o.Checkpoints.DiskReserve = 0
	if err := os.WriteFile(o.TokenFile, []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	return o
}

// log keeps what an agent says.
type log struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// run runs an agent until the test ends or stop is called.
func run(t *testing.T, o Options) (said *log, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done, said := make(chan error, 1), &log{}
	go func() { done <- Run(ctx, o, said) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want no error after an orderly stop", err)
		}
	})
	t.Cleanup(stop)
	return said, stop
}

func call(t *testing.T, o Options, method, path, body string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+o.HTTP.Listen+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// eventually asks until the reply has a status and holds a text.
func eventually(t *testing.T, o Options, path string, status int, want string) {
	t.Helper()
	var got string
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		code, body, err := call(t, o, http.MethodGet, path, "")
		if err == nil && code == status && strings.Contains(body, want) {
			return
		}
		got = fmt.Sprint(code, " ", body, " ", err)
		select {
		case <-deadline.C:
			t.Fatalf("GET %s: got %s, want %d with %q", path, got, status, want)
		case <-tick.C:
		}
	}
}

func TestPageAgent(t *testing.T) {
	o := testOptions(t)
	_, stop := run(t, o)
	eventually(t, o, "/health/ready", 200, `"ready":true`)
	template := api.TemplateRevision{Revision: 1, Template: api.Template{Name: "shop", Image: "page", Port: 80}.WithDefaults()}
	desired, err := json.Marshal(api.Desired{Term: 1, Generation: 1, Templates: []api.TemplateRevision{template}, Instances: []api.DesiredInstance{{
		ID: "i-1", Template: template.Ref(), Host: "d-1.demo.localhost", URL: "http://d-1.demo.localhost", State: api.InstanceWarm,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if code, body, err := call(t, o, http.MethodPut, "/v1/desired", string(desired)); err != nil || code != 200 {
		t.Fatalf("PUT /v1/desired: got %d %s, %v", code, body, err)
	}
	eventually(t, o, "/v1/observed", 200, `"id":"i-1","state":"warm"`)
	eventually(t, o, "/metrics", 200, `demo_agent_instances{state="warm"} 1`)
	for _, want := range []string{
		`demo_agent_stage_duration_seconds_count{stage="cold_boot"} 1`, "demo_agent_capacity_instances 64", "demo_agent_restores 0",
		"demo_agent_checkpoint_bytes 0", "demo_agent_disk_available_bytes", "demo_agent_memory_available_bytes", "demo_agent_build_info{", "go_goroutines",
	} {
		eventually(t, o, "/metrics", 200, want)
	}
	if code, _, err := call(t, o, http.MethodGet, "/v1/blobs/"+strings.Repeat("0", 64), ""); err != nil || code != 404 {
		t.Errorf("a blob that is not here: got %d, %v, want 404", code, err)
	}
	stop()
	if _, _, err := call(t, o, http.MethodGet, "/health", ""); err == nil {
		t.Error("a stopped agent still answers")
	}
}

// TestStartsWithoutPodman checks an agent whose Podman is not there yet.
func TestStartsWithoutPodman(t *testing.T) {
	o := testOptions(t)
	o.Runtime, o.Podman.Socket = RuntimePodman, filepath.Join(t.TempDir(), "podman.sock")
	said, stop := run(t, o)
	eventually(t, o, "/health/live", 200, `"live":true`)
	eventually(t, o, "/health/ready", 503, "waits for the preflight: connect to podman at "+o.Podman.Socket)
	for _, path := range []string{"/v1/observed", "/v1/blobs/" + strings.Repeat("0", 64), "/v1/checkpoints/" + strings.Repeat("0", 64)} {
		eventually(t, o, path, 503, `"code":"unavailable"`)
	}
	if code, body, err := call(t, o, http.MethodPut, "/v1/desired", `{}`); err != nil || code != 503 {
		t.Errorf("PUT /v1/desired: got %d %s, %v, want 503", code, body, err)
	}
	eventually(t, o, "/metrics", 200, "demo_agent_build_info")
	stop()
	if got := strings.Count(said.String(), "the preflight failed"); got != 1 {
		t.Errorf("the same reason was logged %d times, want once:\n%s", got, said)
	}
}

func TestFailsClearly(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(t *testing.T, o *Options)
	}{
		{"a port in use", "address already in use", func(t *testing.T, o *Options) {
			l, err := net.Listen("tcp", o.HTTP.Listen)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}},
		{"no token", "token_file: read a secret", func(_ *testing.T, o *Options) { o.TokenFile += "x" }},
		{"a token that is too short", "has fewer than", func(t *testing.T, o *Options) { write(t, o.TokenFile, "short") }},
		{"a token that everybody may read", "can be read by everybody", func(t *testing.T, o *Options) {
			if err := os.Chmod(o.TokenFile, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"a gossip key that is none", "must be 32 bytes in base64", func(t *testing.T, o *Options) {
			o.Gossip.KeyFile = o.TokenFile + ".key"
			write(t, o.Gossip.KeyFile, "c2hvcnQ=")
		}},
		{"records that are torn", "restore the file or remove it", func(t *testing.T, o *Options) {
			if err := os.MkdirAll(filepath.Join(o.DataDir, "pool"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(o.DataDir, "pool", "desired.json"), "{")
		}},
		{"a log format that is none", "log.format", func(_ *testing.T, o *Options) { o.Log.Format = "xml" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(t)
			c.change(t, &o)
			err := Run(t.Context(), o, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), testToken) {
				t.Errorf("got %v, want %q and no secret", err, c.want)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Options)
	}{
		{"id", func(o *Options) { o.ID = "Not a name" }},
		{"data_dir", func(o *Options) { o.DataDir = "" }},
		{"token_file", func(o *Options) { o.TokenFile = "" }},
		{"runtime", func(o *Options) { o.Runtime = "docker" }},
		{"podman.socket", func(o *Options) { o.Runtime, o.Podman.Socket = RuntimePodman, "podman.sock" }},
		{"capacity", func(o *Options) { o.Capacity = 0 }},
		{"starts", func(o *Options) { o.Starts = 0 }},
		{"http.listen", func(o *Options) { o.HTTP.Listen = "localhost" }},
		{"http.advertise", func(o *Options) { o.HTTP.Advertise = "0.0.0.0:7070" }},
		{"gossip.advertise", func(o *Options) { o.Gossip.Advertise = "" }},
		{"ports", func(o *Options) { o.Ports = PortOptions{First: 20000, Last: 20001} }},
		{"checkpoints.transfers", func(o *Options) { o.Checkpoints.Transfers = 0 }},
		{"stop_deadline", func(o *Options) { o.StopDeadline = 0 }},
		{"log", func(o *Options) { o.Log.Level = "loud" }},
	} {
		t.Run(c.field, func(t *testing.T) {
			o := testOptions(t)
			c.change(&o)
			err := o.Validate()
			if api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), c.field+" ") {
				t.Errorf("got %v, want code invalid that names %s", err, c.field)
			}
		})
	}
}

func TestMemoryAvailable(t *testing.T) {
	for text, want := range map[string]api.Bytes{
		"MemTotal: 100 kB\nMemAvailable:   2048 kB\nMemFree: 1 kB\n": 2 << 20, "MemAvailable: lots\n": 0, "": 0,
	} {
		if got := memoryAvailable(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
