package httpx

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadSecret(t *testing.T) {
	long := strings.Repeat("s", minSecret)
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		want, err     string
	}{
		{"right", long + "\n", 0o600, long, ""},
		{"for the group", long, 0o640, long, ""},
		{"for everybody", long, 0o644, "", "chmod 600"},
		{"short", "short", 0o600, "", "fewer than"},
		{"empty", "\n", 0o600, "", "fewer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			got, err := ReadSecret(path)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "sss")) {
				t.Errorf("got %q, %v, want %q and an error with %q that does not show the secret", got, err, c.want, c.err)
			}
		})
	}
	if _, err := ReadSecret(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file: got no error")
	}
}

func TestRequireToken(t *testing.T) {
	for _, c := range []struct {
		token, shown string
		status       int
	}{
		{"right", "Bearer right", 200},
		{"right", "bearer  right", 200},
		{"right", "Bearer wrong", 401},
		{"right", "Basic right", 401},
		{"right", "right", 401},
		{"right", "", 401},
		{"", "Bearer ", 401},
		{"", "", 401},
	} {
		a, _ := newAdapter()
		h := a.RequireToken(c.token)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		w, _ := ask(t, h, "GET", "/", "", "Authorization", c.shown)
		if w.Code != c.status || c.status == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("token %q, shown %q: got %d %v, want %d", c.token, c.shown, w.Code, w.Header(), c.status)
		}
	}
}

func TestClient(t *testing.T) {
	trusted, err := ParseTrustedProxies([]string{"10.0.0.0/8", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"direct", "192.0.2.1:1", nil, "192.0.2.1"},
		{"spoofed", "192.0.2.1:1", []string{"203.0.113.9"}, "192.0.2.1"},
		{"proxy", "10.0.0.1:1", []string{"192.0.2.1"}, "192.0.2.1"},
		{"spoofed through a proxy", "10.0.0.1:1", []string{"203.0.113.9, 192.0.2.1"}, "192.0.2.1"},
		{"spoofed in an own field", "10.0.0.1:1", []string{"203.0.113.9", "192.0.2.1"}, "192.0.2.1"},
		{"two proxies", "10.0.0.1:1", []string{"203.0.113.9, 192.0.2.1, 10.0.0.2"}, "192.0.2.1"},
		{"with a port", "10.0.0.1:1", []string{"192.0.2.1:4711"}, "192.0.2.1"},
		{"IPv6 with a port", "10.0.0.1:1", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"only proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"garbage", "10.0.0.1:1", []string{"x, 192.0.2.1, y"}, "10.0.0.1"},
		{"nothing sent", "10.0.0.1:1", nil, "10.0.0.1"},
		{"mapped", "[::ffff:10.0.0.1]:1", []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		{"IPv6 proxy", "[fd00::1]:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"no address", "@", []string{"192.0.2.1"}, "@"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.RemoteAddr = c.remote
			r.Header["X-Forwarded-For"] = c.forwarded
			if got := trusted.Client(r); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if _, err := ParseTrustedProxies([]string{"10.0.0.1"}); err == nil {
		t.Error("an address without a length: got no error")
	}
}
