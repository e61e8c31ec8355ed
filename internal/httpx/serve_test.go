package httpx

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/boss/demo-multiplexer/api"
)

// run serves h on a real port until stop, which returns Run's error.
func run(t *testing.T, h http.Handler) (url string, stop func() error) {
	t.Helper()
	s, err := Listen("127.0.0.1:0", h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return "http://" + s.Addr().String(), func() error { cancel(); return <-ended }
}

func get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestServerDrains(t *testing.T) {
	begun := make(chan struct{})
	url, stop := run(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-Draining(r.Context())
		_, _ = io.WriteString(w, "finished")
	}))
	done := make(chan error, 1)
	go func() { <-begun; done <- stop() }()
	if status, body := get(t, url); status != 200 || body != "finished" {
		t.Errorf("got %d %q, want the running request to finish", status, body)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: got %v, want an orderly stop", err)
	}
	if Draining(t.Context()) != nil {
		t.Error("Draining outside a server: got a channel, want none")
	}
}

func TestOverlongHeaderIs431(t *testing.T) {
	url, stop := run(t, http.NotFoundHandler())
	if status, _ := get(t, url, "X-Long", strings.Repeat("h", 2*maxHeader)); status != 431 {
		t.Errorf("got %d, want 431", status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestListenOnATakenPort(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	s, err := Listen("127.0.0.1:0", http.NotFoundHandler(), logger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Addr().String(), http.NotFoundHandler(), logger); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want an error that says that the address is in use", err)
	}
	s.Close()
	again, err := Listen(s.Addr().String(), http.NotFoundHandler(), logger)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
}

func TestHealth(t *testing.T) {
	a, _ := newAdapter()
	health, live, ready := a.MountHealth(func() api.Health { return api.Health{Why: []string{"no leader"}} })
	for _, c := range []struct {
		name   string
		h      http.Handler
		status int
	}{{"health", health, 503}, {"live", live, 200}, {"ready", ready, 503}} {
		w, _ := ask(t, c.h, "GET", "/", "")
		if w.Code != c.status || !strings.Contains(w.Body.String(), "no leader") || !strings.Contains(w.Body.String(), `"live":true`) {
			t.Errorf("%s: got %d %s, want %d, alive, and the reason", c.name, w.Code, w.Body, c.status)
		}
	}
}
