package httpx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// readHeaderTimeout ends clients that send their header drop by drop.
	readHeaderTimeout = 5 * time.Second
	// readTimeout ends clients that send their body drop by drop.
	readTimeout = 30 * time.Second
	// idleTimeout must be longer than that of load balancers in front, so that
	// they close first and never send into a closing connection.
	idleTimeout = 120 * time.Second
	// maxHeader bounds the header of a request, in bytes.
	maxHeader = 32 << 10
	// drainTimeout is how long running requests may take when the server stops.
	drainTimeout = 5 * time.Second
)

// Server is an HTTP server that drains when its context ends.
type Server struct {
	listener net.Listener
	server   *http.Server
	stopping context.CancelFunc
}

// Listen opens address and returns its server.
func Listen(address string, handler http.Handler, logger *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	return NewServer(l, handler, logger), nil
}

// NewServer returns a server on l, which it closes. It answers once Run is
// called. Requests' contexts end when draining begins only if they ask
// [Draining].
func NewServer(l net.Listener, handler http.Handler, logger *slog.Logger) *Server {
	draining, stop := context.WithCancel(context.Background())
	s := &Server{listener: l, stopping: stop}
	s.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), drainingKey, draining)
		},
	}
	return s
}

const drainingKey contextKey = 100

// Draining returns a channel that is closed when the server that serves ctx
// begins to stop. Streams end then, so that they do not hold up the stop.
func Draining(ctx context.Context) <-chan struct{} {
	if d, ok := ctx.Value(drainingKey).(context.Context); ok {
		return d.Done()
	}
	return nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close gives the address back where Run is never called.
func (s *Server) Close() {
	s.stopping()
	_ = s.listener.Close() // nobody was ever answered
}

// Run serves until ctx ends, then lets running requests finish.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.listener) }()
	select {
	case err := <-done:
		s.stopping()
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	s.stopping()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := s.server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close()
	}
	<-done //nolint:errcheck // it says that the server was closed
	if err != nil {
		return fmt.Errorf("stop HTTP: %w", err)
	}
	return nil
}

// MountHealth returns the handlers of /health, /health/live and /health/ready.
// check says whether the process is ready, and if not, why.
func (a *Adapter) MountHealth(check func() api.Health) (health, live, ready http.HandlerFunc) {
	answer := func(ok func(api.Health) bool) http.HandlerFunc {
		return a.Handle(func(w http.ResponseWriter, _ *http.Request) error {
			h := check()
			h.Live = true
			status := http.StatusOK
			if !ok(h) {
				status = http.StatusServiceUnavailable
			}
			w.Header().Set("Cache-Control", "no-store")
			return Encode(w, status, h)
		})
	}
	isReady := func(h api.Health) bool { return h.Ready }
	isLive := func(h api.Health) bool { return h.Live }
	return answer(isReady), answer(isLive), answer(isReady)
}

// NotFound answers paths that do not exist.
func (a *Adapter) NotFound() http.HandlerFunc {
	return a.Handle(func(http.ResponseWriter, *http.Request) error {
		return api.Errorf(api.CodeNotFound, "there is nothing at this path; the API begins at /api/v1")
	})
}

// MethodNotAllowed answers methods that a path does not know.
func (a *Adapter) MethodNotAllowed() http.HandlerFunc {
	return a.Handle(func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", strings.Join(allowed(r), ", "))
		e := api.Errorf(api.CodeInvalid, "this path does not answer %q; the Allow header says what it does", r.Method)
		e.Status = http.StatusMethodNotAllowed
		return e
	})
}

// allowed lists the methods that a request's path answers. The router knows
// them, but tells only its own handler.
func allowed(r *http.Request) []string {
	routes := chi.RouteContext(r.Context()).Routes
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return methods
}
