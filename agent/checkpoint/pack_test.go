package checkpoint

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackAndUnpack(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "checkpoint", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{"checkpoint/pages-1.img": "memory", "checkpoint/sub/core-1.img": "core", "shm.tar": "shm", "secret": "not asked for"} {
		overwrite(t, filepath.Join(dir, path), []byte(content))
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "checkpoint", "link")); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := Pack(b, dir, "checkpoint", "shm.tar", "not-there"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same files gave two different archives")
	}
	s := testStore(t)
	m, _ := put(t, s, map[string][]byte{PagesBlob: first.Bytes()})
	to := filepath.Join(t.TempDir(), "pages", "x")
	for range 2 { // again: nothing to do
		if err := s.Unpack(m.Blobs[0], to); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"checkpoint/pages-1.img": "memory", "checkpoint/sub/core-1.img": "core", "shm.tar": "shm"} {
		if got, err := os.ReadFile(filepath.Join(to, path)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"secret", "checkpoint/link"} {
		if exists(t, to, path) {
			t.Errorf("%s was packed", path)
		}
	}
}

func TestHostileArchives(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for _, c := range []struct {
		name    string
		headers []tar.Header
	}{
		{"a path upwards", []tar.Header{{Name: "../evil", Typeflag: tar.TypeReg, Size: 4}}},
		{"a path upwards in the middle", []tar.Header{{Name: "a/../../evil", Typeflag: tar.TypeReg, Size: 4}}},
		{"an absolute path", []tar.Header{{Name: outside, Typeflag: tar.TypeReg, Size: 4}}},
		{"a directory upwards", []tar.Header{{Name: "../evil/", Typeflag: tar.TypeDir}}},
		{"a symbolic link", []tar.Header{{Name: "link", Linkname: filepath.Dir(outside), Typeflag: tar.TypeSymlink}}},
		{"a hard link", []tar.Header{{Name: "link", Linkname: "/etc/passwd", Typeflag: tar.TypeLink}}},
		{"a device", []tar.Header{{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}},
		{"a pipe", []tar.Header{{Name: "pipe", Typeflag: tar.TypeFifo}}},
		{"a file twice", []tar.Header{{Name: "a", Typeflag: tar.TypeReg, Size: 4}, {Name: "a", Typeflag: tar.TypeReg, Size: 4}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range c.headers {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
				if h.Size > 0 {
					if _, err := w.Write([]byte("evil")); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			s := testStore(t)
			m, _ := put(t, s, map[string][]byte{PagesBlob: b.Bytes()})
			parent := t.TempDir()
			if err := s.Unpack(m.Blobs[0], filepath.Join(parent, "pages")); err == nil {
				t.Error("it was unpacked")
			}
			if left := names(t, parent); len(left) != 0 {
				t.Errorf("left beside the pages: got %v, want nothing", left)
			}
			if exists(t, outside) {
				t.Error("a file was written outside")
			}
		})
	}
}

func TestUnpackRefusesCorruptBlobs(t *testing.T) {
	dir := t.TempDir()
	overwrite(t, filepath.Join(dir, "file"), bytes.Repeat([]byte("memory"), 1000))
	var b bytes.Buffer
	if err := Pack(&b, dir, "file"); err != nil {
		t.Fatal(err)
	}
	s := testStore(t)
	m, _ := put(t, s, map[string][]byte{PagesBlob: b.Bytes()})
	blob := m.Blobs[0]
	flipped := bytes.Clone(b.Bytes())
	flipped[1500] ^= 1 // in the content: the archive itself stays readable
	overwrite(t, s.blobPath(blob.Digest), flipped)
	parent := t.TempDir()
	if err := s.Unpack(blob, filepath.Join(parent, "pages")); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("got %v, want that it is corrupt", err)
	}
	if left := names(t, parent); len(left) != 0 {
		t.Errorf("left: got %v, want nothing", left)
	}
	if exists(t, s.blobPath(blob.Digest)) {
		t.Error("the corrupt blob is still there")
	}
}

func TestSweepPages(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{unpackPrefix + "1", "complete"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := SweepPages(dir); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 1 || got[0] != "complete" {
		t.Errorf("left: got %v, want the complete one", got)
	}
	if err := SweepPages(filepath.Join(dir, "nowhere")); err != nil {
		t.Errorf("no directory: got %v, want no error", err)
	}
}
