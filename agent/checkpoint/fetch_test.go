package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const testToken = "0123456789abcdef0123456789abcdef"

// peer is another agent that serves its store, and may misbehave.
type peer struct {
	*httptest.Server
	store   *Store
	ranges  []string          // of the requests for blobs
	cutAt   int               // not 0: the connection breaks after so many bytes of a blob
	noRange bool              // serves whole blobs only
	lies    map[string][]byte // content by digest that it gives out instead
}

func newPeer(t *testing.T, s *Store) *peer {
	t.Helper()
	p := &peer{store: s, lies: map[string][]byte{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/checkpoints/{digest}", func(w http.ResponseWriter, r *http.Request) {
		raw, err := p.store.RawManifest(api.Digest(r.PathValue("digest")))
		if lie, ok := p.lies[r.PathValue("digest")]; ok {
			raw, err = lie, nil
		}
		if err != nil || r.Header.Get("Authorization") != "Bearer "+testToken {
			http.Error(w, "no", api.CodeOf(err).Status())
			return
		}
		_, _ = w.Write(raw)
	})
	mux.HandleFunc("GET /v1/blobs/{digest}", p.blob)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *peer) blob(w http.ResponseWriter, r *http.Request) {
	p.ranges = append(p.ranges, r.Header.Get("Range"))
	content, err := os.ReadFile(p.store.blobPath(api.Digest(r.PathValue("digest"))))
	if lie, ok := p.lies[r.PathValue("digest")]; ok {
		content, err = lie, nil
	}
	switch {
	case err != nil:
		http.Error(w, "no", http.StatusNotFound)
	case p.cutAt > 0:
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(content[:p.cutAt])
		panic(http.ErrAbortHandler)
	case p.noRange:
		_, _ = w.Write(content)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

func testFetcher(t *testing.T, s *Store) *Fetcher {
	t.Helper()
	f := NewFetcher(s, testClass, testToken, 2, 0)
	t.Cleanup(f.Client.CloseIdleConnections)
	return f
}

func content() map[string][]byte {
	return map[string][]byte{PagesBlob: bytes.Repeat([]byte("pages"), 20_000), ImageBlob: bytes.Repeat([]byte("image"), 30_000)}
}

func source(d api.Digest, peers ...*peer) api.CheckpointSource {
	src := api.CheckpointSource{Digest: d, For: testRef}
	for _, p := range peers {
		src.Sources = append(src.Sources, p.URL)
	}
	return src
}

// wantHere checks that s holds what another store put under d.
func wantHere(t *testing.T, s *Store, m api.Manifest, d api.Digest) {
	t.Helper()
	if _, err := s.Manifest(d); err != nil {
		t.Errorf("manifest: %v", err)
	}
	for _, b := range m.Blobs {
		if err := s.Verify(b); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
	if left := names(t, s.path("partial")); len(left) != 0 {
		t.Errorf("partial files: got %v, want none", left)
	}
}

func TestFetch(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(p *peer, m api.Manifest, to *Store) []*peer // returns peers to ask before p
	}{
		{"from the first source", func(*peer, api.Manifest, *Store) []*peer { return nil }},
		{"from the second, as the first has nothing", func(*peer, api.Manifest, *Store) []*peer { return []*peer{newPeer(t, testStore(t))} }},
		{"from a peer without ranges, over a partial file", func(p *peer, m api.Manifest, to *Store) []*peer {
			p.noRange = true
			overwrite(t, to.path("partial", string(m.Blobs[0].Digest)), []byte("pagespa"))
			return nil
		}},
		{"over a partial file that is wrong", func(p *peer, m api.Manifest, to *Store) []*peer {
			overwrite(t, to.path("partial", string(m.Blobs[0].Digest)), []byte("wrong"))
			return []*peer{p}
		}},
		{"over a partial file that is too long", func(p *peer, m api.Manifest, to *Store) []*peer {
			overwrite(t, to.path("partial", string(m.Blobs[0].Digest)), bytes.Repeat([]byte("pages"), 30_000))
			return []*peer{p}
		}},
		{"from the second, as the first sends something else", func(p *peer, m api.Manifest, _ *Store) []*peer {
			liar := newPeer(t, p.store)
			liar.lies[string(m.Blobs[0].Digest)] = bytes.Repeat([]byte("lies!"), 20_000)
			return []*peer{liar}
		}},
		{"from the second, as the first sends more than it should", func(p *peer, m api.Manifest, _ *Store) []*peer {
			liar := newPeer(t, p.store)
			liar.lies[string(m.Blobs[0].Digest)] = bytes.Repeat([]byte("pages"), 40_000)
			return []*peer{liar, p}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := testStore(t), testStore(t)
			m, d := put(t, from, content())
			p := newPeer(t, from)
			peers := append(c.prepare(p, m, to), p)
			if err := testFetcher(t, to).Fetch(t.Context(), source(d, peers...)); err != nil {
				t.Fatal(err)
			}
			wantHere(t, to, m, d)
		})
	}
}

func TestFetchContinues(t *testing.T) {
	from, to := testStore(t), testStore(t)
	m, d := put(t, from, content())
	cut, whole := newPeer(t, from), newPeer(t, from)
	cut.cutAt = 60_000
	f := testFetcher(t, to)
	if err := f.Fetch(t.Context(), source(d, cut)); err == nil {
		t.Fatal("a transfer that broke off: got no error")
	}
	if err := f.Fetch(t.Context(), source(d, whole)); err != nil {
		t.Fatal(err)
	}
	wantHere(t, to, m, d)
	if got := whole.ranges[0]; got != "bytes=60000-" {
		t.Errorf("range asked for after 60000 bytes: got %q, want bytes=60000-", got)
	}
	again := len(whole.ranges)
	if err := f.Fetch(t.Context(), source(d, whole)); err != nil || len(whole.ranges) != again {
		t.Errorf("fetching what is here: got %v and %d more requests, want none", err, len(whole.ranges)-again)
	}
}

func TestFetchRefuses(t *testing.T) {
	from := testStore(t)
	_, d := put(t, from, content())
	p := newPeer(t, from)
	full := Disk{Reserve: 1 << 30, Free: func(string) (api.Bytes, error) { return 1<<30 + 1000, nil }}
	for _, c := range []struct {
		name   string
		change func(*Fetcher, *api.CheckpointSource)
		want   string
	}{
		{"another host class", func(f *Fetcher, _ *api.CheckpointSource) { f.HostClass = "arm64" }, "is of host class amd64-6.18-cafe, and this node is arm64"},
		{"another template", func(_ *Fetcher, s *api.CheckpointSource) { s.For.Revision = 2 }, "is for tiny revision 1, not for tiny revision 2"},
		{"a wrong token", func(f *Fetcher, _ *api.CheckpointSource) { f.Token = "wrong" }, "answered 500"},
		{"no source", func(_ *Fetcher, s *api.CheckpointSource) { s.Sources = nil }, "is not on this node"},
		{"a full disk", func(f *Fetcher, _ *api.CheckpointSource) { f.Store.disk = full }, "full: free 1024 MiB"},
		{"a manifest that lies", func(_ *Fetcher, s *api.CheckpointSource) {
			s.Digest = digest([]byte("another"))
			p.lies[string(s.Digest)] = []byte(`{"version":1}`)
		}, "the manifest has digest"},
		{"a manifest that is no checkpoint", func(_ *Fetcher, s *api.CheckpointSource) {
			raw := []byte(`{"version":1,"blobs":[{"name":"pages.tar","digest":"../../etc/passwd"}]}`)
			s.Digest = digest(raw)
			p.lies[string(s.Digest)] = raw
		}, `blob "pages.tar" of the manifest is not valid`},
		{"a manifest of tomorrow", func(_ *Fetcher, s *api.CheckpointSource) {
			raw := []byte(`{"version":2}`)
			s.Digest = digest(raw)
			p.lies[string(s.Digest)] = raw
		}, "manifest version 2 is not known here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := testStore(t)
			f, src := testFetcher(t, to), source(d, p)
			c.change(f, &src)
			if err := f.Fetch(t.Context(), src); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if list, err := to.List(); err != nil || len(list) != 0 {
				t.Errorf("stored: got %v, %v, want nothing", list, err)
			}
			if blobs := names(t, to.path("blobs")); len(blobs) != 0 {
				t.Errorf("blobs: got %v, want none", blobs)
			}
		})
	}
}

func TestTransferSlotsAreBounded(t *testing.T) {
	from, to := testStore(t), testStore(t)
	_, d := put(t, from, content())
	f := testFetcher(t, to)
	f.Slots <- struct{}{}
	f.Slots <- struct{}{}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the caller left")
	cancel(gone)
	raw, err := from.RawManifest(d)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, to.manifestPath(d), raw) // so that only the blobs are missing
	if err := f.Fetch(ctx, source(d)); !errors.Is(err, gone) {
		t.Errorf("with all slots taken: got %v, want to wait until the caller leaves", err)
	}
}

func TestPacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		p := newPaced(ctx, iotest.HalfReader(bytes.NewReader(make([]byte, 10<<20))), cancel, 1<<20)
		defer p.stop()
		began := time.Now()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, p, make([]byte, 64<<10))
		if took := time.Since(began); err != nil || n != 10<<20 || took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10 MiB at 1 MiB/s: got %d bytes in %s, %v, want about 10s", n, took, err)
		}
	})
}

// TestSlowPaceIsNoStall checks a limit so low that one read makes the next
// wait for longer than a silent peer may.
func TestSlowPaceIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		p := newPaced(ctx, bytes.NewReader(make([]byte, 3000)), cancel, 50)
		defer p.stop()
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, p, make([]byte, 1000)); err != nil || ctx.Err() != nil {
			t.Errorf("got %v, %v, want no error", err, context.Cause(ctx))
		}
	})
}

func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		silent, w := io.Pipe()
		p := newPaced(ctx, silent, cancel, 0)
		defer p.stop()
		context.AfterFunc(ctx, func() { _ = w.CloseWithError(context.Cause(ctx)) }) // as a connection does
		began := time.Now()
		_, err := p.Read(make([]byte, 10))
		if took := time.Since(began); !errors.Is(err, errStalled) || took != stallTimeout {
			t.Errorf("a silent peer: got %v after %s, want errStalled after %s", err, took, stallTimeout)
		}
	})
}
