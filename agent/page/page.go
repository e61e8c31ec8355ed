package page

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// readTimeout ends clients that send drop by drop.
	readTimeout = 10 * time.Second
	// maxNote bounds what a visitor may write, in bytes.
	maxNote = 4 << 10
)

// Reason says why a node with this runtime does not restore.
const Reason = "development runtime: pages are served by the agent itself, without containers"

// Runtime serves instances as pages. It is safe for concurrent use.
type Runtime struct {
	address netip.Addr
	logger  *slog.Logger

	mu        sync.Mutex // guards instances
	instances map[api.InstanceID]*instance
}

// New returns a runtime that publishes its pages on address.
func New(address netip.Addr, logger *slog.Logger) *Runtime {
	return &Runtime{address: address, logger: logger, instances: map[api.InstanceID]*instance{}}
}

// Info describes this host as a node that boots cold only.
func Info(node api.NodeID, agent string) api.NodeInfo {
	return api.NodeInfo{
		ID: node, HostClass: api.HostClass(runtime.GOARCH + "-development"), Reason: Reason,
		Versions: api.Versions{Agent: agent, Podman: "none", Runtime: "page", CRIU: "none", Kernel: runtime.GOOS},
	}
}

// instance is one page with its server.
type instance struct {
	want     api.DesiredInstance
	template api.Template
	username string
	password string
	port     int
	server   *http.Server
	done     chan struct{} // closed when the server has ended

	mu   sync.Mutex // guards note
	note string
}

// List returns the pages that are served.
func (r *Runtime) List(context.Context) ([]api.ObservedInstance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []api.ObservedInstance
	for id, i := range r.instances {
		all = append(all, api.ObservedInstance{ID: id, State: api.InstanceWarm, Port: i.port})
	}
	slices.SortFunc(all, func(a, b api.ObservedInstance) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// Start serves a page of its own for an instance.
func (r *Runtime) Start(_ context.Context, t api.TemplateRevision, want api.DesiredInstance, port int) (api.ObservedInstance, error) {
	if want.Checkpoint != "" {
		return api.ObservedInstance{}, errors.New("the development runtime does not restore checkpoints")
	}
	began := time.Now()
	listener, err := net.Listen("tcp", netip.AddrPortFrom(r.address, uint16(port)).String())
	if err != nil {
		return api.ObservedInstance{}, fmt.Errorf("serve the page: %w", err)
	}
	i := &instance{want: want, template: t.Template, username: "admin", password: rand.Text(), port: port, done: make(chan struct{})}
	i.server = &http.Server{
		Handler: i.routes(), ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout,
		ErrorLog: slog.NewLogLogger(r.logger.Handler(), slog.LevelDebug),
	}
	r.mu.Lock()
	r.instances[want.ID] = i
	r.mu.Unlock()
	go func() {
		defer close(i.done)
		if err := i.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			r.logger.Warn("a page ended", "instance", want.ID, "err", err)
		}
	}()
	return api.ObservedInstance{
		ID: want.ID, State: api.InstanceWarm, Port: port,
		Credentials: &api.Credentials{Username: i.username, Password: i.password},
		Stages:      []api.Stage{{Name: api.StageColdBoot, Took: api.Duration(time.Since(began))}},
	}, nil
}

// Remove ends the page of an instance.
func (r *Runtime) Remove(_ context.Context, id api.InstanceID) error {
	r.mu.Lock()
	i := r.instances[id]
	delete(r.instances, id)
	r.mu.Unlock()
	if i == nil {
		return nil
	}
	err := i.server.Close()
	<-i.done
	return err
}

// Close ends all pages.
func (r *Runtime) Close() error {
	var errs []error
	all, err := r.List(context.Background())
	errs = append(errs, err)
	for _, i := range all {
		errs = append(errs, r.Remove(context.Background(), i.ID))
	}
	return errors.Join(errs...)
}

// Build always fails: there is nothing to checkpoint.
func (r *Runtime) Build(context.Context, api.TemplateRevision, int) (api.ObservedBuild, error) {
	return api.ObservedBuild{}, errors.New(Reason)
}

// Checkpoints is the empty library of a node that does not restore.
type Checkpoints struct{}

// List returns nothing.
func (Checkpoints) List(context.Context) ([]api.Digest, error) { return nil, nil }

// Ensure always fails.
func (Checkpoints) Ensure(context.Context, api.CheckpointSource) error { return errors.New(Reason) }

// Remove has nothing to remove.
func (Checkpoints) Remove(context.Context, api.Digest) error { return nil }

func (i *instance) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", i.show)
	mux.HandleFunc("POST /note", i.write)
	return mux
}

var shown = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Template}} (development page)</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}
.warn{background:#fde68a;border:2px solid #b45309;padding:.5rem 1rem;font-weight:bold}</style></head><body>
<p class="warn">DEVELOPMENT ONLY: this is a built-in page, not a real shop. There is no container and no isolation.</p>
<h1>Demo of {{.Template}}</h1>
<p>Instance <b>{{.Instance}}</b> at <b>{{.Host}}</b>, path {{.Path}}.</p>
<p>Your note: <b>{{.Note}}</b></p>
<form method="post" action="/note"><label>New note <input name="note" maxlength="200"></label> <button>Keep</button></form>
</body></html>
`))

func (i *instance) show(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	note := i.note
	i.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Demo-Mode", "development")
	// A visitor who left is the only way that this fails.
	_ = shown.Execute(w, map[string]string{
		"Template": string(i.template.Name), "Instance": string(i.want.ID), "Host": i.want.Host, "Path": r.URL.Path, "Note": note,
	})
}

func (i *instance) write(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxNote)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the note is too long", http.StatusRequestEntityTooLarge)
		return
	}
	i.mu.Lock()
	i.note = r.PostForm.Get("note")
	i.mu.Unlock()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
