package page

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPages(t *testing.T) {
	tests := map[string]struct {
		page   Page
		status int
		says   string
		retry  string
	}{
		"unknown": {Unknown(), http.StatusNotFound, "No demo lives here", ""},
		"ended":   {Ended(), http.StatusGone, "This demo has ended", ""},
		"down":    {Down(), http.StatusServiceUnavailable, "starting", "5"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			test.page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://x.example/", nil))
			if w.Code != test.status {
				t.Errorf("status: got %d, want %d", w.Code, test.status)
			}
			if !strings.Contains(w.Body.String(), test.says) {
				t.Errorf("body does not say %q:\n%s", test.says, w.Body)
			}
			if got := w.Header().Get("Retry-After"); got != test.retry {
				t.Errorf("Retry-After: got %q, want %q", got, test.retry)
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control: got %q, want no-store", got)
			}
		})
	}
}

// TestPagesAreInert: Caddy would replace placeholders, and a page that loads
// or runs anything could be turned against the next visitor.
func TestPagesAreInert(t *testing.T) {
	for name, p := range map[string]Page{"unknown": Unknown(), "ended": Ended(), "down": Down()} {
		for _, banned := range []string{"{", "}", "<script", "src=", "href=", "url(", "http://", "https://", "onload"} {
			if strings.Contains(p.Body, banned) {
				t.Errorf("%s: contains %q", name, banned)
			}
		}
		if len(p.Body) > 4<<10 {
			t.Errorf("%s: %d bytes; a page is part of every push and stays below 4 KiB", name, len(p.Body))
		}
	}
}
