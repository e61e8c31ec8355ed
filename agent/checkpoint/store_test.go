package checkpoint

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

func TestStoreKeepsCheckpoints(t *testing.T) {
	s := testStore(t)
	m, d := put(t, s, map[string][]byte{PagesBlob: []byte("pages"), ImageBlob: []byte("image")})
	again, err := Open(s.dir, Disk{}) // as a restarted agent does
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Manifest(d)
	if err != nil {
		t.Fatal(err)
	}
	m.Version = manifestVersion
	if diff := cmp.Diff(got, m); diff != "" {
		t.Errorf("manifest (-got +want):\n%s", diff)
	}
	if list, err := again.List(); err != nil || !slices.Equal(list, []api.Digest{d}) {
		t.Errorf("List() = %v, %v, want %v", list, err, d)
	}
	if got := again.Bytes(); got != 10 {
		t.Errorf("Bytes() = %d, want 10", got)
	}
	if err := again.Remove(d); err != nil {
		t.Fatal(err)
	}
	if left := names(t, s.path("blobs")); len(left) != 0 {
		t.Errorf("blobs after Remove: got %v, want none", left)
	}
	if err := again.Remove(d); err != nil {
		t.Errorf("Remove again: got %v, want no error", err)
	}
}

func TestSharedBlobsStay(t *testing.T) {
	s := testStore(t)
	_, one := put(t, s, map[string][]byte{PagesBlob: []byte("one"), ImageBlob: []byte("shared")})
	m, _ := put(t, s, map[string][]byte{PagesBlob: []byte("two"), ImageBlob: []byte("shared")})
	if err := s.Remove(one); err != nil {
		t.Fatal(err)
	}
	for _, b := range m.Blobs {
		if !exists(t, s.blobPath(b.Digest)) {
			t.Errorf("%s of the other checkpoint is gone", b.Name)
		}
	}
}

func TestWriterKeepsItsBlobs(t *testing.T) {
	s := testStore(t)
	_, other := put(t, s, map[string][]byte{PagesBlob: []byte("other")})
	done := s.Writing()
	b, err := s.WriteBlob(PagesBlob, func(w io.Writer) error { _, err := w.Write([]byte("new")); return err })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(other); err != nil { // sweeps
		t.Fatal(err)
	}
	if !exists(t, s.blobPath(b.Digest)) {
		t.Error("the blob of a writer was swept away")
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
	if exists(t, s.blobPath(b.Digest)) {
		t.Error("a blob that no manifest came to name is still there")
	}
}

func TestFailedWriteLeavesNothing(t *testing.T) {
	s := testStore(t)
	broken := errors.New("broken")
	_, err := s.WriteBlob(PagesBlob, func(w io.Writer) error { _, _ = w.Write([]byte("half")); return broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the writer's error", err)
	}
	if left := slices.Concat(names(t, s.path("tmp")), names(t, s.path("blobs"))); len(left) != 0 {
		t.Errorf("left: got %v, want nothing", left)
	}
	if _, err := s.Put(api.Manifest{Blobs: []api.Blob{{Name: PagesBlob, Digest: digest([]byte("x"))}}}); err == nil {
		t.Error("a manifest without its blob was stored")
	}
}

func TestNamesAreChecked(t *testing.T) {
	s := testStore(t)
	for _, d := range []api.Digest{"", "../../etc/passwd", "ABC", api.Digest(strings.Repeat("A", 64)), api.Digest(strings.Repeat("a", 65))} {
		if _, err := s.OpenBlob(d); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("OpenBlob(%q): got %v, want code invalid", d, err)
		}
		if _, err := s.RawManifest(d); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("RawManifest(%q): got %v, want code invalid", d, err)
		}
		if err := s.Remove(d); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("Remove(%q): got %v, want code invalid", d, err)
		}
	}
	nobody := digest([]byte("nobody has this"))
	if _, err := s.OpenBlob(nobody); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("OpenBlob of nothing: got %v, want code not_found", err)
	}
	if _, err := s.RawManifest(nobody); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("RawManifest of nothing: got %v, want code not_found", err)
	}
}

func TestOpenClearsWhatCrashesLeft(t *testing.T) {
	s := testStore(t)
	m, d := put(t, s, map[string][]byte{PagesBlob: []byte("pages")})
	broken, lost := digest([]byte("manifest")), digest([]byte("lost"))
	overwrite(t, s.manifestPath(broken), []byte(`{"version":1}`)) // not what its name says
	overwrite(t, s.blobPath(lost), []byte("lost"))
	overwrite(t, s.path("tmp", "blob-1"), []byte("half"))
	fresh, stale := s.path("partial", string(digest([]byte("fresh")))), s.path("partial", string(digest([]byte("stale"))))
	overwrite(t, fresh, []byte("half"))
	overwrite(t, stale, []byte("half"))
	old := time.Now().Add(-2 * partialKept)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir, Disk{})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := again.List(); err != nil || !slices.Equal(list, []api.Digest{d}) {
		t.Errorf("List() = %v, %v, want only the good one", list, err)
	}
	if got, want := names(t, s.path("blobs")), []string{string(m.Blobs[0].Digest)}; !slices.Equal(got, want) {
		t.Errorf("blobs: got %v, want %v", got, want)
	}
	if got := names(t, s.path("tmp")); len(got) != 0 {
		t.Errorf("tmp: got %v, want nothing", got)
	}
	if got, want := names(t, s.path("partial")), []string{filepath.Base(fresh)}; !slices.Equal(got, want) {
		t.Errorf("partial fetches: got %v, want the fresh one", got)
	}
}

func TestVerifyRemovesCorruptBlobs(t *testing.T) {
	s := testStore(t)
	m, _ := put(t, s, map[string][]byte{PagesBlob: []byte("pages")})
	b := m.Blobs[0]
	if err := s.Verify(b); err != nil {
		t.Fatal(err)
	}
	overwrite(t, s.blobPath(b.Digest), []byte("pagez"))
	if err := s.Verify(b); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("got %v, want that it is corrupt", err)
	}
	if exists(t, s.blobPath(b.Digest)) {
		t.Error("the corrupt blob is still there, so it would never be fetched again")
	}
}

func TestDiskReserve(t *testing.T) {
	free := api.Bytes(100 << 20)
	disk := Disk{Reserve: 64 << 20, Free: func(string) (api.Bytes, error) { return free, nil }}
	s, err := Open(t.TempDir(), disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Room(36 << 20); err != nil {
		t.Errorf("Room(36MiB) with 100 free and 64 reserved: got %v, want no error", err)
	}
	err = s.Room(37 << 20)
	if api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "free 100 MiB, need 101 MiB") {
		t.Errorf("Room(37MiB): got %v, want code unavailable with both figures", err)
	}
	chunk := make([]byte, 8<<20)
	_, err = s.WriteBlob(PagesBlob, func(w io.Writer) error {
		for range 10 {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
			free -= api.Bytes(len(chunk))
		}
		return nil
	})
	if api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("writing into the reserve: got %v, want code unavailable", err)
	}
	if free < 64<<20 {
		t.Errorf("free disk when it stopped: got %s, want the reserve of 64MiB", free)
	}
}
