package page

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
)

func TestMain(m *testing.M) {
	// The server lingers for half a second over a client that sent too much.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

var loopback = netip.MustParseAddr("127.0.0.1")

func testRuntime(t *testing.T) *Runtime {
	t.Helper()
	r := New(loopback, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// freePort returns a port that nobody listened on a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int(netip.MustParseAddrPort(l.Addr().String()).Port())
}

var revision = api.TemplateRevision{Template: api.Template{Name: "shop"}, Revision: 1}

func start(t *testing.T, r *Runtime, id api.InstanceID) api.ObservedInstance {
	t.Helper()
	i, err := r.Start(t.Context(), revision, api.DesiredInstance{ID: id, Host: string(id) + ".demo.localhost"}, freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func client(t *testing.T) *http.Client {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func address(i api.ObservedInstance, path string) string {
	return "http://127.0.0.1:" + strconv.Itoa(i.Port) + path
}

func get(t *testing.T, c *http.Client, i api.ObservedInstance, path string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(address(i, path))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestTwoPagesAreTwoShops(t *testing.T) {
	r, c := testRuntime(t), client(t)
	one, two := start(t, r, "i-1"), start(t, r, "i-2")
	if one.State != api.InstanceWarm || one.Credentials == nil || one.Credentials.Password == two.Credentials.Password {
		t.Errorf("got %+v and %+v, want warm with credentials of their own", one, two)
	}
	resp, err := c.PostForm(address(one, "/note"), url.Values{"note": {"<b>mine</b>"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	reply, page := get(t, c, one, "/some/path")
	for _, want := range []string{"DEVELOPMENT ONLY", "i-1.demo.localhost", "/some/path", "&lt;b&gt;mine&lt;/b&gt;"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if got := reply.Header.Get("X-Demo-Mode"); got != "development" {
		t.Errorf("X-Demo-Mode: got %q, want development", got)
	}
	if _, page := get(t, c, two, "/"); strings.Contains(page, "mine") {
		t.Error("a note in one shop is seen in the other")
	}
	resp, err = c.PostForm(address(one, "/note"), url.Values{"note": {strings.Repeat("x", maxNote)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("an endless note: got %d, %v, want 413", resp.StatusCode, err)
	}
}

func TestRemove(t *testing.T) {
	r, c := testRuntime(t), client(t)
	start(t, r, "i-1")
	two := start(t, r, "i-2")
	if err := r.Remove(t.Context(), "i-2"); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), "i-2"); err != nil {
		t.Errorf("Remove again: got %v, want no error", err)
	}
	if resp, err := c.Get(address(two, "/")); err == nil {
		_ = resp.Body.Close()
		t.Error("a removed page still answers")
	}
	if all, err := r.List(t.Context()); err != nil || len(all) != 1 || all[0].ID != "i-1" || all[0].State != api.InstanceWarm {
		t.Errorf("List: got %+v, %v, want i-1", all, err)
	}
}

func TestRefusals(t *testing.T) {
	r := testRuntime(t)
	one := start(t, r, "i-1")
	if _, err := r.Start(t.Context(), revision, api.DesiredInstance{ID: "i-2"}, one.Port); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port in use: got %v, want that it is", err)
	}
	if all, err := r.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("after a failed start: got %v, %v, want one page", all, err)
	}
	if _, err := r.Start(t.Context(), revision, api.DesiredInstance{ID: "i-3", Checkpoint: "cafe"}, freePort(t)); err == nil {
		t.Error("a restore: got no error")
	}
	if _, err := r.Build(t.Context(), revision, freePort(t)); err == nil {
		t.Error("a build: got no error")
	}
	var none Checkpoints
	if err := none.Ensure(t.Context(), api.CheckpointSource{}); err == nil {
		t.Error("a fetch: got no error")
	}
	if info := Info("laptop", "1"); info.Restores || info.Reason == "" {
		t.Errorf("Info: got %+v, want a node that does not restore and says why", info)
	}
}
