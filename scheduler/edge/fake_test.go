package edge

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeCaddy behaves like Caddy's admin API where the driver depends on it:
// the configuration tree, @id, ETag as a trailer, If-Match, and the loss of
// everything on restart.
type fakeCaddy struct {
	*httptest.Server

	mu       sync.Mutex
	config   any
	requests []string      // of the driver: "GET /id/demo-table"
	before   func(*change) // called once before the next write, to write in between
	fail     map[string]int
	broken   bool // writes are carried out, their replies are lost
}

func newFakeCaddy(t *testing.T) *fakeCaddy {
	t.Helper()
	f := &fakeCaddy{fail: map[string]int{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

// behave changes how the fake behaves from the next request on.
func (f *fakeCaddy) behave(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// restart loses the configuration, like a Caddy without --resume.
func (f *fakeCaddy) restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.config = nil
}

// edit changes the configuration like an operator does.
func (f *fakeCaddy) edit(t *testing.T, method, path, body string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var v any
	if body != "" {
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
	}
	if status, err := f.apply(method, path, v); err != nil {
		t.Fatalf("edit %s %s: %d %v", method, path, status, err)
	}
}

// taken returns the requests since the last call.
func (f *fakeCaddy) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.requests
	f.requests = nil
	return r
}

func (f *fakeCaddy) value(path string) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, _ := f.lookup(path)
	return copyOf(v)
}

// copyOf copies v, because the tree changes in place.
func copyOf(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var c any
	if err := json.Unmarshal(b, &c); err != nil {
		panic(err)
	}
	return c
}

func (f *fakeCaddy) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	if status := f.fail[r.Method]; status != 0 {
		reply(w, status, "told to fail")
		return
	}
	path := r.URL.Path
	if id, ok := strings.CutPrefix(path, "/id/"); ok {
		if path, ok = find(f.config, "/config", id); !ok {
			reply(w, http.StatusNotFound, "unknown object ID '"+id+"'")
			return
		}
	}
	if r.Method == http.MethodGet {
		v, err := f.lookup(path)
		if err != nil {
			reply(w, http.StatusBadRequest, err.Error())
			return
		}
		w.Header().Set("Trailer", "ETag")
		_ = json.NewEncoder(w).Encode(v)
		w.Header().Set("ETag", etag(path, v))
		return
	}
	if f.before != nil {
		hook := f.before
		f.before = nil
		hook(&change{method: r.Method, path: path})
	}
	matched, _, _ := strings.Cut(strings.Trim(r.Header.Get("If-Match"), `"`), " ")
	if v, err := f.lookup(matched); err != nil || etag(matched, v) != r.Header.Get("If-Match") {
		reply(w, http.StatusPreconditionFailed, "If-Match header did not match current config hash")
		return
	}
	var body any
	if b, _ := io.ReadAll(r.Body); len(b) > 0 {
		if err := json.Unmarshal(b, &body); err != nil {
			reply(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	if status, err := f.apply(r.Method, path, body); err != nil {
		reply(w, status, err.Error())
		return
	}
	if f.broken {
		panic(http.ErrAbortHandler)
	}
}

func reply(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}

func etag(path string, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	h := fnv.New32a()
	_, _ = h.Write(b)
	return fmt.Sprintf("%q", path+" "+strconv.FormatUint(uint64(h.Sum32()), 16))
}

func find(v any, path, id string) (string, bool) {
	switch v := v.(type) {
	case map[string]any:
		if v["@id"] == id {
			return path, true
		}
		for key, child := range v {
			if found, ok := find(child, path+"/"+key, id); ok {
				return found, true
			}
		}
	case []any:
		for i, child := range v {
			if found, ok := find(child, path+"/"+strconv.Itoa(i), id); ok {
				return found, true
			}
		}
	}
	return "", false
}

func elements(path string) []string {
	path = strings.Trim(strings.TrimPrefix(path, "/config"), "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

func (f *fakeCaddy) lookup(path string) (any, error) {
	v := f.config
	for _, e := range elements(path) {
		switch at := v.(type) {
		case map[string]any:
			v = at[e]
		case []any:
			i, err := strconv.Atoi(e)
			if err != nil || i < 0 || i >= len(at) {
				return nil, fmt.Errorf("array index out of bounds: %s", e)
			}
			v = at[i]
		default:
			return nil, fmt.Errorf("invalid traversal path at: %s", e)
		}
	}
	return v, nil
}

func (f *fakeCaddy) apply(method, path string, body any) (int, error) {
	parts := elements(path)
	if len(parts) == 0 {
		f.config = body
		return 0, nil
	}
	parent, last := parts[:len(parts)-1], parts[len(parts)-1]
	if method == http.MethodPut {
		if f.config == nil {
			f.config = map[string]any{}
		}
		at := f.config
		for _, e := range parent {
			m, ok := at.(map[string]any)
			if !ok {
				break
			}
			if m[e] == nil {
				m[e] = map[string]any{}
			}
			at = m[e]
		}
	}
	container, err := f.lookup(strings.Join(parent, "/"))
	if err != nil {
		return http.StatusBadRequest, err
	}
	switch at := container.(type) {
	case map[string]any:
		_, exists := at[last]
		switch {
		case method == http.MethodPut && exists:
			return http.StatusConflict, fmt.Errorf("key already exists: %s", last)
		case method == http.MethodPatch && !exists:
			return http.StatusNotFound, fmt.Errorf("key does not exist: %s", last)
		case method == http.MethodDelete:
			delete(at, last)
		default:
			at[last] = body
		}
	case []any:
		i, err := strconv.Atoi(last)
		if err != nil || i < 0 || i >= len(at) {
			return http.StatusBadRequest, fmt.Errorf("array index out of bounds: %s", last)
		}
		switch method {
		case http.MethodPut:
			at = slices.Insert(at, i, body)
		case http.MethodDelete:
			at = slices.Delete(slices.Clone(at), i, i+1)
		default:
			at[i] = body
		}
		return f.apply(http.MethodPatch, strings.Join(parent, "/"), at)
	default:
		return http.StatusBadRequest, fmt.Errorf("invalid traversal path at: %s", last)
	}
	return 0, nil
}
