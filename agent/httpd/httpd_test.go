package httpd

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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

const testToken = "0123456789abcdef0123456789abcdef"

// fakePool answers with what it was told last.
type fakePool struct {
	mu       sync.Mutex // guards the fields below
	desired  api.Desired
	refuse   error
	observes chan struct{} // gets a word when somebody waits for news
	boot     string        // of the last Observe
	after    uint64
}

func (p *fakePool) Accept(_ context.Context, d api.Desired) (api.Observed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return api.Observed{}, p.refuse
	}
	p.desired = d
	return api.Observed{Boot: "boot", Revision: 7, Term: d.Term, Generation: d.Generation}, nil
}

// Observe has no news, ever.
func (p *fakePool) Observe(ctx context.Context, boot string, after uint64) (api.Observed, error) {
	p.mu.Lock()
	p.boot, p.after = boot, after
	p.mu.Unlock()
	if after >= 7 {
		p.observes <- struct{}{}
		<-ctx.Done()
	}
	return api.Observed{Boot: "boot", Revision: 7}, nil
}

// fakeStore has one blob and one manifest.
type fakeStore struct{ dir string }

var known = api.Digest(strings.Repeat("ab", 32))

func (s fakeStore) RawManifest(d api.Digest) ([]byte, error) {
	if d != known {
		return nil, api.Errorf(api.CodeNotFound, "checkpoint is not on this node")
	}
	return []byte(`{"version":1}`), nil
}

func (s fakeStore) OpenBlob(d api.Digest) (*os.File, error) {
	if _, err := api.ParseDigest(string(d)); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "%w", err)
	}
	if d != known {
		return nil, api.Errorf(api.CodeNotFound, "blob is not on this node")
	}
	return os.Open(filepath.Join(s.dir, "blob"))
}

func testAPI(t *testing.T) (http.Handler, *fakePool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "blob"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	registry, pool := prometheus.NewRegistry(), &fakePool{observes: make(chan struct{}, 1)}
	return New(Options{
		Adapter: httpx.NewAdapter(slog.New(slog.DiscardHandler), registry, "demo_agent"), Token: testToken, Pool: pool, Store: fakeStore{dir},
		Health:  func() api.Health { return api.Health{Why: []string{"the preflight is not done"}} },
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}), pool
}

// call sends one request and returns status and body.
func call(t *testing.T, h http.Handler, method, path, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+testToken)
	for n := 0; n < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Header()
}

func TestRequests(t *testing.T) {
	blob := "/v1/blobs/" + string(known)
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		want                     string
	}{
		{"desired", "PUT", "/v1/desired", `{"term":3,"generation":4}`, nil, 200, `"revision":7,"term":3,"generation":4`},
		{"desired without token", "PUT", "/v1/desired", `{}`, []string{"Authorization", ""}, 401, `"code":"unauthenticated"`},
		{"desired with a wrong token", "PUT", "/v1/desired", `{}`, []string{"Authorization", "Bearer wrong"}, 401, `"code":"unauthenticated"`},
		{"desired that is no JSON", "PUT", "/v1/desired", `{"term":`, nil, 400, `"code":"invalid"`},
		{"desired with an unknown field", "PUT", "/v1/desired", `{"turm":3}`, nil, 400, `"turm"`},
		{"desired that is too large", "PUT", "/v1/desired", strings.Repeat(" ", maxDesired+1), nil, 413, "larger than"},
		{"observed at once", "GET", "/v1/observed?boot=boot&after=6", "", nil, 200, `"revision":7`},
		{"observed without a query", "GET", "/v1/observed", "", nil, 200, `"revision":7`},
		{"observed after nonsense", "GET", "/v1/observed?after=x", "", nil, 400, "must be a revision"},
		{"observed after an empty word", "GET", "/v1/observed?after=", "", nil, 400, "must be a revision"},
		{"observed without token", "GET", "/v1/observed", "", []string{"Authorization", "Basic x"}, 401, `"code":"unauthenticated"`},
		{"a manifest", "GET", "/v1/checkpoints/" + string(known), "", nil, 200, `{"version":1}`},
		{"a manifest that is not here", "GET", "/v1/checkpoints/" + strings.Repeat("00", 32), "", nil, 404, `"code":"not_found"`},
		{"a blob", "GET", blob, "", nil, 200, "0123456789"},
		{"a blob without token", "GET", blob, "", []string{"Authorization", ""}, 401, `"code":"unauthenticated"`},
		{"the rest of a blob", "GET", blob, "", []string{"Range", "bytes=4-"}, 206, "456789"},
		{"beyond a blob", "GET", blob, "", []string{"Range", "bytes=99-"}, 416, ""},
		{"a blob that is not here", "GET", "/v1/blobs/" + strings.Repeat("00", 32), "", nil, 404, `"code":"not_found"`},
		{"a path as digest", "GET", "/v1/blobs/..%2F..%2Fetc%2Fpasswd", "", nil, 400, `"code":"invalid"`},
		{"no digest", "GET", "/v1/blobs/", "", nil, 404, `"code":"not_found"`},
		{"another method", "POST", "/v1/desired", "", nil, 405, `"code":"invalid"`},
		{"health", "GET", "/health", "", []string{"Authorization", ""}, 503, "the preflight is not done"},
		{"liveness", "GET", "/health/live", "", []string{"Authorization", ""}, 200, `"live":true`},
		{"readiness", "GET", "/health/ready", "", []string{"Authorization", ""}, 503, `"ready":false`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _ := testAPI(t)
			status, body, _ := call(t, h, c.method, c.path, c.body, c.header...)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%s %s: got %d %s, want %d with %s", c.method, c.path, status, body, c.status, c.want)
			}
		})
	}
}

func TestRefusalsKeepTheirCode(t *testing.T) {
	h, pool := testAPI(t)
	pool.refuse = &api.Error{Code: api.CodeUnavailable, Message: "the agent is starting", RetryAfter: time.Second}
	status, body, header := call(t, h, http.MethodPut, "/v1/desired", `{}`)
	if status != 503 || !strings.Contains(body, `"code":"unavailable"`) || header.Get("Retry-After") != "1" {
		t.Errorf("got %d %s, Retry-After %q, want 503, code unavailable, 1", status, body, header.Get("Retry-After"))
	}
	pool.refuse = api.Errorf(api.CodeConflict, "an older term")
	if status, body, _ := call(t, h, http.MethodPut, "/v1/desired", `{}`); status != 409 || !strings.Contains(body, "an older term") {
		t.Errorf("got %d %s, want 409 with the reason", status, body)
	}
}

func TestMetricsCountRequestsByRoute(t *testing.T) {
	h, _ := testAPI(t)
	call(t, h, http.MethodGet, "/v1/blobs/"+string(known), "")
	_, body, _ := call(t, h, http.MethodGet, "/metrics", "", "Authorization", "")
	want := `demo_agent_http_request_duration_seconds_count{method="GET",route="/v1/blobs/{digest}",status="200"} 1`
	if !strings.Contains(body, want) {
		t.Errorf("got\n%s\nwant %s", body, want)
	}
}

// TestWaitingEndsWhenTheServerDrains checks that a leader that waits for news
// is answered at once when the agent stops.
func TestWaitingEndsWhenTheServerDrains(t *testing.T) {
	h, pool := testAPI(t)
	server, err := httpx.Listen("127.0.0.1:0", h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	type reply struct {
		status int
		body   string
		err    error
	}
	replies := make(chan reply, 1)
	go func() {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.Addr().String()+"/v1/observed?boot=boot&after=7", nil)
		if err != nil {
			replies <- reply{err: err}
			return
		}
		r.Header.Set("Authorization", "Bearer "+testToken)
		resp, err := client.Do(r)
		if err != nil {
			replies <- reply{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		replies <- reply{resp.StatusCode, string(body), err}
	}()
	<-pool.observes // it waits
	began := time.Now()
	stop()
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
	if got := <-replies; got.err != nil || got.status != 200 || !strings.Contains(got.body, `"revision":7`) {
		t.Errorf("the waiting request: got %d %s, %v, want 200 with what there is", got.status, got.body, got.err)
	}
	if took := time.Since(began); took > pollTimeout/2 {
		t.Errorf("the stop took %s, want much less than a wait of %s", took, pollTimeout)
	}
}
