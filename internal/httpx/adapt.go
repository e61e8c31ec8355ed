package httpx

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

// Handler serves a request or returns an error that says why not. It must not
// return an error after it has written a part of the body.
type Handler func(w http.ResponseWriter, r *http.Request) error

// RequestIDHeader carries the request ID in both directions.
const RequestIDHeader = "X-Request-Id"

// statusGone is what a request counts as whose caller left before the reply.
// Nobody gets to see it; nginx made the number known.
const statusGone = 499

type contextKey int

const requestIDKey contextKey = iota

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// RequestID returns the ID of the request that ctx belongs to.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

// Adapter renders handlers' errors, and logs and counts requests.
type Adapter struct {
	logger   *slog.Logger
	duration *prometheus.HistogramVec
}

// Buckets are for latencies from half a millisecond to half a minute, in
// seconds.
func Buckets() []float64 {
	return []float64{.0005, .001, .002, .004, .008, .016, .032, .064, .128, .256, .512, 1, 2, 4, 8, 16, 32}
}

// NewAdapter returns an adapter whose metrics begin with prefix.
func NewAdapter(logger *slog.Logger, registerer prometheus.Registerer, prefix string) *Adapter {
	a := &Adapter{logger: logger, duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: prefix + "_http_request_duration_seconds", Help: "Time from a request's header to the end of its reply.", Buckets: Buckets(),
	}, []string{"route", "method", "status"})}
	registerer.MustRegister(a.duration)
	return a
}

// Handle adapts one handler.
func (a *Adapter) Handle(h Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			a.problem(w, r, err)
		}
	}
}

// Middleware tags every request with an ID, survives panics, and logs and
// counts what it was answered.
func (a *Adapter) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := r.Header.Get(RequestIDHeader)
		if !requestIDPattern.MatchString(id) {
			id = api.NewRequestID()
		}
		w.Header().Set(RequestIDHeader, id)
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey, id))
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares this value itself
					panic(p)
				}
				a.logger.Error("handler panicked", "request_id", id, "panic", p, "stack", string(debug.Stack()))
				if rec.status == 0 {
					a.problem(rec, r, errors.New("handler panicked"))
				}
			}
			a.record(r, rec, time.Since(start))
		}()
		next.ServeHTTP(rec, r)
	})
}

func (a *Adapter) record(r *http.Request, rec *recorder, took time.Duration) {
	route := "none"
	if c := chi.RouteContext(r.Context()); c != nil && c.RoutePattern() != "" {
		route = c.RoutePattern()
	}
	method := r.Method
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions:
	default:
		method = "other" // anybody can invent methods; metrics must stay bounded
	}
	status := rec.status
	if status == 0 {
		status = http.StatusOK
	}
	a.duration.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
	a.logger.Debug("request", "request_id", RequestID(r.Context()), "method", method, "route", route, "status", status, "took", took)
}

// problem writes err as an RFC 9457 problem.
func (a *Adapter) problem(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		w.WriteHeader(statusGone) // nobody is there to read more; it is for the metric
		return
	}
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Code: api.CodeInternal, Message: "something went wrong here; tell the operator the request id", Err: err}
	}
	if e.Code == api.CodeInternal {
		a.logger.Error("request failed", "request_id", RequestID(r.Context()), "method", r.Method, "err", err)
	}
	WriteProblem(w, r, e)
}

// WriteProblem writes e as an RFC 9457 problem.
func WriteProblem(w http.ResponseWriter, r *http.Request, e *api.Error) {
	status := e.HTTPStatus()
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A caller who left is the only way that this fails.
	_ = json.NewEncoder(w).Encode(api.Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: e.Message,
		Instance: r.URL.Path, Code: e.Code, RequestID: RequestID(r.Context()), Fields: e.Fields,
	})
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK // implied: a problem can no longer be written
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
