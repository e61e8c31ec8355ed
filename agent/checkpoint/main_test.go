package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testClass = api.HostClass("amd64-6.18-cafe")

var testRef = api.TemplateRef{Name: "tiny", Revision: 1}

func testStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), Disk{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put stores a checkpoint with the given blobs and returns its manifest.
func put(t *testing.T, s *Store, blobs map[string][]byte) (api.Manifest, api.Digest) {
	t.Helper()
	done := s.Writing()
	m := api.Manifest{For: testRef, HostClass: testClass, Image: "image", CreatedAt: time.Unix(1_700_000_000, 0).UTC()}
	for _, name := range []string{PagesBlob, ImageBlob} {
		content, ok := blobs[name]
		if !ok {
			continue
		}
		b, err := s.WriteBlob(name, func(w io.Writer) error { _, err := w.Write(content); return err })
		if err != nil {
			t.Fatal(err)
		}
		m.Blobs = append(m.Blobs, b)
	}
	d, err := s.Put(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
	return m, d
}

func digest(b []byte) api.Digest {
	sum := sha256.Sum256(b)
	return api.Digest(hex.EncodeToString(sum[:]))
}

// overwrite breaks a file of the store.
func overwrite(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func exists(t *testing.T, path ...string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(path...))
	return err == nil
}
