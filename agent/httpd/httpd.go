package httpd

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

const (
	// pollTimeout is how long a request for what is observed may wait for news.
	pollTimeout = 10 * time.Second
	// acceptTimeout bounds taking what the leader desires: the agent writes it
	// to disk before it answers.
	acceptTimeout = 10 * time.Second
	// maxDesired bounds what a leader may send, in bytes: thousands of
	// instances.
	maxDesired = 8 << 20
)

// Pool owns the instances.
type Pool interface {
	Accept(ctx context.Context, d api.Desired) (api.Observed, error)
	Observe(ctx context.Context, boot string, after uint64) (api.Observed, error)
}

// Store has the checkpoints. Its errors have code not_found or invalid where
// that is what is wrong.
type Store interface {
	RawManifest(digest api.Digest) ([]byte, error)
	OpenBlob(digest api.Digest) (*os.File, error)
}

// Options are the parts that the API needs.
type Options struct {
	Adapter *httpx.Adapter
	Token   string // of the cluster
	Pool    Pool
	Store   Store
	Health  func() api.Health
	Metrics http.Handler
}

// New returns the agent's API.
func New(o Options) http.Handler {
	s := &server{pool: o.Pool, store: o.Store}
	health, live, ready := o.Adapter.MountHealth(o.Health)
	r := chi.NewRouter()
	r.Use(o.Adapter.Middleware)
	r.NotFound(o.Adapter.NotFound())
	r.MethodNotAllowed(o.Adapter.MethodNotAllowed())
	r.Get("/health", health)
	r.Get("/health/live", live)
	r.Get("/health/ready", ready)
	r.Method(http.MethodGet, "/metrics", o.Metrics)
	r.Group(func(r chi.Router) {
		r.Use(o.Adapter.RequireToken(o.Token))
		r.Put("/v1/desired", o.Adapter.Handle(s.putDesired))
		r.Get("/v1/observed", o.Adapter.Handle(s.getObserved))
		r.Get("/v1/checkpoints/{digest}", o.Adapter.Handle(s.getCheckpoint))
		r.Get("/v1/blobs/{digest}", o.Adapter.Handle(s.getBlob))
	})
	return r
}

type server struct {
	pool  Pool
	store Store
}

func (s *server) putDesired(w http.ResponseWriter, r *http.Request) error {
	var d api.Desired
	if err := httpx.Decode(r, &d, maxDesired); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), acceptTimeout)
	defer cancel()
	observed, err := s.pool.Accept(ctx, d)
	if err != nil {
		return err
	}
	return httpx.Encode(w, http.StatusOK, observed)
}

func (s *server) getObserved(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	after, err := strconv.ParseUint(query.Get("after"), 10, 64)
	if err != nil && query.Has("after") {
		return api.InvalidFields("the query is not valid", []api.FieldError{{Field: "after", Reason: "must be a revision"}})
	}
	ctx, cancel := context.WithTimeout(r.Context(), pollTimeout)
	defer cancel()
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-httpx.Draining(r.Context()): //nolint:contextcheck // the end of the server is a context of its own
			cancel() // a waiting leader must not hold up the stop
		case <-ctx.Done():
		}
	}()
	observed, err := s.pool.Observe(ctx, query.Get("boot"), after)
	if err != nil {
		return err
	}
	return httpx.Encode(w, http.StatusOK, observed)
}

func (s *server) getCheckpoint(w http.ResponseWriter, r *http.Request) error {
	raw, err := s.store.RawManifest(api.Digest(chi.URLParam(r, "digest")))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	// A peer that left is the only way that this fails.
	_, _ = w.Write(raw)
	return nil
}

func (s *server) getBlob(w http.ResponseWriter, r *http.Request) (err error) {
	digest := api.Digest(chi.URLParam(r, "digest"))
	f, err := s.store.OpenBlob(digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+string(digest)+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}
