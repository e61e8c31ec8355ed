package httpd

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// errStopping is the cause with which waits and streams end when the server
// drains.
var errStopping = errors.New("this scheduler is stopping")

// retryAfter is when an election is likely over, and another scheduler found.
const retryAfter = time.Second

func unavailable(format string, args ...any) *api.Error {
	e := api.Errorf(api.CodeUnavailable, format, args...)
	e.RetryAfter = retryAfter
	return e
}

// lasting runs handlers that may take as long as they like while the server
// runs: reading the request has its deadline behind it, and draining ends them.
func lasting(next httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return api.Errorf(api.CodeInternal, "clear the read deadline: %w", err)
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		watched := make(chan struct{})
		defer func() { cancel(nil); <-watched }()
		go func() {
			defer close(watched)
			select {
			case <-httpx.Draining(ctx):
				cancel(errStopping)
			case <-ctx.Done():
			}
		}()
		err := next(w, r.WithContext(ctx))
		if code := api.CodeOf(err); errors.Is(context.Cause(ctx), errStopping) && (code == api.CodeInternal || code == api.CodeNotLeader) {
			return unavailable("this scheduler is stopping; ask again, another one answers: %w", err)
		}
		return err
	}
}

// waiting makes acquires lasting that are willing to wait in line.
func waiting(next httpx.Handler) httpx.Handler {
	patient := lasting(next)
	return func(w http.ResponseWriter, r *http.Request) error {
		if wait, _ := parseWait(r.Header.Values("Prefer")); wait > 0 {
			return patient(w, r)
		}
		return next(w, r)
	}
}

// streaming gives every stream a place, of which there are MaxStreams.
func (s *Server) streaming(next httpx.Handler) httpx.Handler {
	next = lasting(next)
	return func(w http.ResponseWriter, r *http.Request) error {
		select {
		case s.streams <- struct{}{}:
			defer func() { <-s.streams }()
		default:
			e := api.Errorf(api.CodeExhausted, "too many status streams are open here; ask GET /api/v1/demo/{id} now and then instead")
			e.RetryAfter = 5 * retryAfter
			return e
		}
		s.metrics.streams.Inc()
		defer s.metrics.streams.Dec()
		return next(w, r)
	}
}
