package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
	"github.com/boss/demo-multiplexer/internal/lifecycle"
	"github.com/boss/demo-multiplexer/scheduler/consensus"
	"github.com/boss/demo-multiplexer/scheduler/session"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// floorCommand makes this program one server of the floors.
const floorCommand = "floor"

const (
	templateName = api.TemplateName("shop")
	floorNode    = api.NodeID("n1")
	leaseTTL     = 30 * time.Minute
	maxLeaseTTL  = 2 * time.Hour
	// noLimit is a quota that nobody uses up: its counters are kept all the same.
	noLimit = int64(1) << 40
	// maxBody bounds a request, as the scheduler does.
	maxBody = 64 << 10
	// stopDeadlineFloor bounds the stop of one floor server.
	stopDeadlineFloor = 5 * time.Second
)

// floorServer serves the floors. It has the parts of a scheduler, and nothing
// between them.
type floorServer struct {
	node  *consensus.Node
	store *session.Valkey

	stocked atomic.Int64 // instances that were made
	claimed atomic.Int64 // of them, those that a request took
}

// serveFloor runs one server until ctx ends.
func serveFloor(ctx context.Context, args []string, log io.Writer) error {
	g, err := newFloor(args, log) //nolint:contextcheck // requests have contexts of their own
	if err != nil {
		return err
	}
	return g.Run(ctx)
}

// newFloor makes the parts of one server.
func newFloor(args []string, log io.Writer) (*lifecycle.Group, error) {
	var id, listen, raft, dir, peers string
	var valkey valkeyAccess
	f := flag.NewFlagSet(floorCommand, flag.ContinueOnError)
	f.StringVar(&id, "id", "", "name of this server")
	f.StringVar(&listen, "listen", "", "address for HTTP")
	f.StringVar(&raft, "raft", "", "address for Raft")
	f.StringVar(&dir, "dir", "", "directory of the Raft log")
	f.StringVar(&peers, "peers", "", "id=address of all servers, with commas between them")
	f.StringVar(&valkey.address, "valkey", "", "address of Valkey")
	f.StringVar(&valkey.passwordFile, "valkey-password-file", "", "file with Valkey's password")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	logger := slog.New(slog.NewTextHandler(log, nil))
	registry := prometheus.NewRegistry()
	store, err := session.NewValkey(session.Options{
		Addresses: []string{valkey.address}, PasswordFile: valkey.passwordFile, Secret: []byte("floor"),
		Limits: session.Limits{PerHour: noLimit, PerDay: noLimit}, WhenDown: session.PolicyRefuse, Logger: logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	node, err := consensus.New(consensus.Options{ID: api.ServerID(id), DataDir: dir, Bind: raft, Logger: logger, Registerer: registry})
	if err != nil {
		return nil, err
	}
	s := &floorServer{node: node, store: store}
	server, err := httpx.Listen(listen, s.routes(httpx.NewAdapter(logger, registry, "floor")), logger)
	if err != nil {
		return nil, err
	}
	g := lifecycle.New(logger, stopDeadlineFloor)
	g.Add("valkey", store.Run)
	g.Add("raft", node.Run)
	g.Add("group", func(ctx context.Context) error { return s.found(ctx, peers) })
	g.Add("http", server.Run)
	return g, nil
}

// found founds the Raft group.
func (s *floorServer) found(ctx context.Context, peers string) error {
	select {
	case <-s.node.Started():
	case <-ctx.Done():
		return nil
	}
	var servers []consensus.Server
	for peer := range strings.SplitSeq(peers, ",") {
		id, address, ok := strings.Cut(peer, "=")
		if !ok {
			return fmt.Errorf("peer %q is not id=address", peer)
		}
		servers = append(servers, consensus.Server{ID: api.ServerID(id), Address: address})
	}
	if err := s.node.Bootstrap(servers); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (s *floorServer) routes(a *httpx.Adapter) http.Handler {
	r := chi.NewRouter()
	r.Use(a.Middleware)
	r.Post("/handler", a.Handle(s.handler))
	r.Post("/limit", a.Handle(s.limit))
	r.Post("/commit", a.Handle(s.commit))
	r.Post("/stock", a.Handle(s.stock))
	r.Get("/leads", a.Handle(s.leads))
	return r
}

// handler decodes a request and encodes a demo.
func (s *floorServer) handler(w http.ResponseWriter, r *http.Request) error {
	var request api.AcquireRequest
	if err := httpx.Decode(r, &request, maxBody); err != nil {
		return err
	}
	return reply(w, &state.Lease{ID: api.NewLeaseID(), Template: api.TemplateRef{Name: request.Template}, Host: api.NewHostLabel()})
}

// limit does what handler does, and asks Valkey.
func (s *floorServer) limit(w http.ResponseWriter, r *http.Request) error {
	if err := s.allow(r); err != nil {
		return err
	}
	return s.handler(w, r)
}

func (s *floorServer) allow(r *http.Request) error {
	q, err := s.store.Allow(r.Context(), httpx.TrustedProxies(nil).Client(r))
	if err == nil && !q.Allowed {
		err = errors.New("a limit without end was used up")
	}
	return err
}

// commit asks Valkey, and claims the next instance that nobody has claimed.
func (s *floorServer) commit(w http.ResponseWriter, r *http.Request) error {
	if err := s.allow(r); err != nil {
		return err
	}
	var request api.AcquireRequest
	if err := httpx.Decode(r, &request, maxBody); err != nil {
		return err
	}
	result, err := s.propose(r.Context(), state.ClaimLease{
		Lease: api.NewLeaseID(), Instance: floorInstance(s.claimed.Add(1) - 1), InstanceRevision: 2,
		TTL: api.Duration(leaseTTL), MaxTTL: api.Duration(maxLeaseTTL),
		IdempotencyKey: r.Header.Get("Idempotency-Key"), Fingerprint: string(request.Template),
	})
	if err != nil {
		return err
	}
	return reply(w, result.Lease)
}

func reply(w http.ResponseWriter, l *state.Lease) error {
	url := "http://" + l.Host
	return httpx.Encode(w, http.StatusCreated, api.Demo{
		ID: l.ID, State: api.DemoActive, Template: l.Template.Name, URL: url, AdminURL: url + "/admin",
		Credentials: &api.Credentials{Username: "admin", Password: string(l.ID)},
		CreatedAt:   l.CreatedAt, ExpiresAt: l.ExpiresAt, ExtendableUntil: l.LatestExpiry, Epoch: l.Epoch, Revision: l.Revision,
	})
}

func (s *floorServer) propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	result, err := s.node.Propose(ctx, cmd)
	if err == nil {
		err = result.Err()
	}
	return result, err
}

func (s *floorServer) leads(w http.ResponseWriter, r *http.Request) error {
	if err := s.node.VerifyLeader(r.Context()); err != nil {
		return err
	}
	if status := s.store.Status(); !status.Healthy {
		return api.Errorf(api.CodeUnavailable, "valkey: %s", status.Reason)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
