// CRIU cannot dump multipath TCP sockets, and a file of the cgroup that is kept
// open need not exist where the instance is restored.
//
//go:debug multipathtcp=0
//go:debug containermaxprocs=0

// Command tiny is the smallest demo image: one page, a note that visitors can
// change, and the hooks of the template contract. It exists for tests, which
// want an instance that starts in milliseconds and shows what it is.
package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	listen       = ":8080"
	identityFile = "/run/identity.json"
	noteFile     = "/var/lib/tiny/note"
	maxNote      = 4 << 10 // bytes
)

func main() {
	var err error
	switch filepath.Base(os.Args[0]) {
	case "before-checkpoint":
		err = writeReply(os.Stdout, reply{})
	case "after-restore":
		err = afterRestore(os.Stdin, os.Stdout, identityFile)
	default:
		err = serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tiny:", err)
		os.Exit(1)
	}
}

// identity is what makes one instance different from its clones.
type identity struct {
	Instance string `json:"instance"`
	Host     string `json:"host"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
	Secret   string `json:"secret"`
}

// reply is what a hook prints.
type reply struct {
	Proofs      map[string]string `json:"proofs,omitempty"`
	Credentials map[string]string `json:"credentials,omitempty"`
}

// afterRestore gives a clone its own identity.
func afterRestore(in io.Reader, out io.Writer, file string) error {
	var id identity
	if err := json.NewDecoder(in).Decode(&id); err != nil {
		return fmt.Errorf("read the hook's input: %w", err)
	}
	id.Username, id.Password, id.Secret = "admin", rand.Text(), rand.Text()
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("keep the identity: %w", err)
	}
	return writeReply(out, reply{
		Proofs:      map[string]string{"password": proof(id.Password), "secret": proof(id.Secret)},
		Credentials: map[string]string{"username": id.Username, "password": id.Password},
	})
}

func proof(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func writeReply(w io.Writer, r reply) error { return json.NewEncoder(w).Encode(r) }

// server holds the state that a checkpoint must keep: the nonce in memory and
// the note in memory and on disk.
type server struct {
	nonce    string // made at process start, so clones of a checkpoint share it
	identity string // file
	file     string // of the note

	mu   sync.Mutex
	note string // guarded by mu
}

func serve() error {
	s := &server{nonce: rand.Text(), identity: identityFile, file: noteFile}
	srv := &http.Server{Addr: listen, Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	return srv.ListenAndServe()
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /note", s.getNote)
	mux.HandleFunc("POST /note", s.putNote)
	mux.HandleFunc("GET /identity", s.getIdentity)
	mux.HandleFunc("GET /admin", s.admin)
	mux.HandleFunc("GET /{$}", s.page)
	return mux
}

func (s *server) load() (identity, error) {
	var id identity
	data, err := os.ReadFile(s.identity)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil // the golden copy
	}
	if err != nil {
		return id, err
	}
	return id, json.Unmarshal(data, &id)
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><title>Tiny demo shop</title>
<h1>Tiny demo shop</h1>
<p>Instance <b>{{.ID.Instance}}</b> at <b>{{.ID.Host}}</b>, started from memory {{.Nonce}}.</p>
<p>Note: <b>{{.Note}}</b></p>
`))

func (s *server) page(w http.ResponseWriter, _ *http.Request) {
	id, err := s.load()
	if err != nil {
		http.Error(w, "the identity cannot be read", http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	note := s.note
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// A visitor who left is the only way that this fails.
	_ = page.Execute(w, struct {
		ID          identity
		Nonce, Note string
	}{id, s.nonce, note})
}

// getIdentity shows what tests compare; the secrets only as proofs.
func (s *server) getIdentity(w http.ResponseWriter, _ *http.Request) {
	id, err := s.load()
	if err != nil {
		http.Error(w, "the identity cannot be read", http.StatusInternalServerError)
		return
	}
	hostname, _ := os.Hostname() // empty says enough
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{
		"instance": id.Instance, "host": id.Host, "url": id.URL, "hostname": hostname,
		"nonce": s.nonce, "password": proof(id.Password), "secret": proof(id.Secret),
	})
}

// admin is a back office: it lets in who has the instance's own password.
func (s *server) admin(w http.ResponseWriter, r *http.Request) {
	id, err := s.load()
	user, password, ok := r.BasicAuth()
	if err != nil || !ok || id.Password == "" || user != id.Username || password != id.Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="tiny"`)
		http.Error(w, "log in with the credentials of your demo", http.StatusUnauthorized)
		return
	}
	fmt.Fprintln(w, "welcome to the back office of", id.Host)
}

func (s *server) getNote(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	note := s.note
	s.mu.Unlock()
	disk, err := os.ReadFile(s.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "the note cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"memory": note, "disk": string(disk)})
}

func (s *server) putNote(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNote))
	if err != nil {
		http.Error(w, "a note has at most 4 KiB", http.StatusRequestEntityTooLarge)
		return
	}
	if err := os.WriteFile(s.file, body, 0o600); err != nil {
		http.Error(w, "the note cannot be kept: "+err.Error(), http.StatusInsufficientStorage)
		return
	}
	s.mu.Lock()
	s.note = string(body)
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}
