package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// The blobs of a checkpoint.
const (
	PagesBlob = "pages.tar" // what the checkpoint wrote: CRIU's images and /dev/shm
	ImageBlob = "image.tar" // the warm image as a docker archive
)

const (
	manifestVersion = 1
	maxManifest     = 64 << 10 // bytes
	maxBlobs        = 8
)

func errNotHere(what string, d api.Digest) error {
	return api.Errorf(api.CodeNotFound, "%s %.12s is not on this node", what, d)
}

func parse(d api.Digest) error {
	if _, err := api.ParseDigest(string(d)); err != nil {
		return api.Errorf(api.CodeInvalid, "%w", err)
	}
	return nil
}

// Store is a directory of checkpoints.
type Store struct {
	dir  string
	disk Disk

	mu      sync.Mutex // guards writers, and serialises what looks at all manifests
	writers int        // who may have blobs that no manifest names yet
}

// Open makes or opens the store in dir and clears what an interrupted write
// left. Partly fetched blobs stay, to be continued.
func Open(dir string, disk Disk) (*Store, error) {
	s := &Store{dir: dir, disk: disk}
	if err := os.RemoveAll(s.path("tmp")); err != nil {
		return nil, fmt.Errorf("open checkpoint store: %w", err)
	}
	for _, sub := range []string{"manifests", "blobs", "partial", "tmp"} {
		if err := os.MkdirAll(s.path(sub), 0o700); err != nil {
			return nil, fmt.Errorf("open checkpoint store: %w", err)
		}
	}
	return s, errors.Join(s.dropStale(time.Now()), s.sweep())
}

// partialKept is how long a fetch may be continued; what is older was given up.
const partialKept = 24 * time.Hour

func (s *Store) dropStale(now time.Time) error {
	entries, err := os.ReadDir(s.path("partial"))
	errs := []error{err}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > partialKept {
			errs = append(errs, os.Remove(s.path("partial", e.Name())))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *Store) blobPath(d api.Digest) string     { return s.path("blobs", string(d)) }
func (s *Store) manifestPath(d api.Digest) string { return s.path("manifests", string(d)) }

// Encode returns the canonical encoding of m and its digest. It is canonical
// because a Manifest has no map, and its time is kept in UTC to the second.
func Encode(m api.Manifest) ([]byte, api.Digest, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, "", fmt.Errorf("encode manifest: %w", err)
	}
	sum := sha256.Sum256(b)
	return b, api.Digest(hex.EncodeToString(sum[:])), nil
}

// decode parses a manifest and checks it against its digest.
func decode(b []byte, want api.Digest) (api.Manifest, error) {
	sum := sha256.Sum256(b)
	if got := api.Digest(hex.EncodeToString(sum[:])); got != want {
		return api.Manifest{}, fmt.Errorf("the manifest has digest %.12s, not %.12s", got, want)
	}
	var m api.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return api.Manifest{}, fmt.Errorf("decode manifest: %w", err)
	}
	return m, check(m)
}

func check(m api.Manifest) error {
	if m.Version != manifestVersion {
		return fmt.Errorf("manifest version %d is not known here", m.Version)
	}
	if len(m.Blobs) == 0 || len(m.Blobs) > maxBlobs {
		return fmt.Errorf("a manifest with %d blobs is not valid", len(m.Blobs))
	}
	for _, b := range m.Blobs {
		if _, err := api.ParseDigest(string(b.Digest)); err != nil || b.Size < 0 {
			return fmt.Errorf("blob %q of the manifest is not valid", b.Name)
		}
	}
	return nil
}

// BlobOf returns the blob of m with a name.
func BlobOf(m api.Manifest, name string) (api.Blob, error) {
	i := slices.IndexFunc(m.Blobs, func(b api.Blob) bool { return b.Name == name })
	if i < 0 {
		return api.Blob{}, fmt.Errorf("the checkpoint has no %s", name)
	}
	return m.Blobs[i], nil
}

// Size returns the bytes of all blobs of m.
func Size(m api.Manifest) int64 {
	var n int64
	for _, b := range m.Blobs {
		n += b.Size
	}
	return n
}

// List returns the checkpoints in the store, sorted.
func (s *Store) List() ([]api.Digest, error) {
	entries, err := os.ReadDir(s.path("manifests"))
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var digests []api.Digest
	for _, e := range entries {
		if d, err := api.ParseDigest(e.Name()); err == nil {
			digests = append(digests, d)
		}
	}
	return digests, nil
}

// RawManifest returns the canonical encoding of a manifest. The error has code
// not_found where the store does not have it.
func (s *Store) RawManifest(d api.Digest) ([]byte, error) {
	if err := parse(d); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(s.manifestPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotHere("checkpoint", d)
	}
	return b, err
}

// Manifest returns a verified manifest. The error has code not_found where the
// store does not have it.
func (s *Store) Manifest(d api.Digest) (api.Manifest, error) {
	b, err := s.RawManifest(d)
	if err != nil {
		return api.Manifest{}, err
	}
	return decode(b, d)
}

// OpenBlob opens a blob for reading. The error has code not_found where the
// store does not have it.
func (s *Store) OpenBlob(d api.Digest) (*os.File, error) {
	if err := parse(d); err != nil {
		return nil, err
	}
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotHere("blob", d)
	}
	return f, err
}

// Writing keeps blobs that no manifest names yet until done is called. Blobs
// that still have none then are removed.
func (s *Store) Writing() (done func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers++
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writers--
		return s.sweep()
	}
}

// WriteBlob stores what write writes, under the digest of it. Call it between
// [Store.Writing] and its done.
func (s *Store) WriteBlob(name string, write func(io.Writer) error) (blob api.Blob, err error) {
	f, err := os.CreateTemp(s.path("tmp"), "blob-*")
	if err != nil {
		return api.Blob{}, fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	hash := sha256.New()
	counted := &counter{w: io.MultiWriter(f, hash), disk: s.disk, dir: s.dir}
	if err := write(counted); err != nil {
		return api.Blob{}, err
	}
	blob = api.Blob{Name: name, Digest: api.Digest(hex.EncodeToString(hash.Sum(nil))), Size: counted.n}
	return blob, s.publish(f, s.blobPath(blob.Digest))
}

// publish makes the complete file f visible at path.
func (s *Store) publish(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Put stores a manifest whose blobs are in the store, and returns its digest.
func (s *Store) Put(m api.Manifest) (api.Digest, error) {
	m.Version = manifestVersion
	b, d, err := Encode(m)
	if err != nil {
		return "", err
	}
	return d, s.putRaw(b, d)
}

func (s *Store) putRaw(b []byte, d api.Digest) (err error) {
	m, err := decode(b, d)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, blob := range m.Blobs {
		if _, err := os.Stat(s.blobPath(blob.Digest)); err != nil {
			return fmt.Errorf("store manifest without its %s: %w", blob.Name, err)
		}
	}
	f, err := os.CreateTemp(s.path("tmp"), "manifest-*")
	if err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("store manifest: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return s.publish(f, s.manifestPath(d))
}

// Remove removes a checkpoint and those of its blobs that no other one has. It
// is no error if there is none.
func (s *Store) Remove(d api.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := parse(d); err != nil {
		return err
	}
	if err := os.Remove(s.manifestPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove checkpoint: %w", err)
	}
	return s.sweep()
}

// sweep removes the blobs that no manifest names, unless somebody is writing.
// A manifest that is not what its name says is of no use to anybody and goes
// too; one that cannot be read stops the sweep: its blobs are not known.
func (s *Store) sweep() error {
	if s.writers > 0 {
		return nil
	}
	all, err := s.List()
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, d := range all {
		raw, err := s.RawManifest(d)
		if err != nil {
			return fmt.Errorf("sweep blobs: %w", err)
		}
		m, err := decode(raw, d)
		if err != nil {
			if err := os.Remove(s.manifestPath(d)); err != nil {
				return fmt.Errorf("sweep blobs: %w", err)
			}
			continue
		}
		for _, b := range m.Blobs {
			named[string(b.Digest)] = true
		}
	}
	blobs, err := os.ReadDir(s.path("blobs"))
	if err != nil {
		return fmt.Errorf("sweep blobs: %w", err)
	}
	var errs []error
	for _, b := range blobs {
		if !named[b.Name()] {
			errs = append(errs, os.Remove(s.path("blobs", b.Name())))
		}
	}
	return errors.Join(errs...)
}

// Bytes returns what the blobs of the store take on disk.
func (s *Store) Bytes() int64 {
	var n int64
	blobs, err := os.ReadDir(s.path("blobs"))
	if err != nil {
		return 0 // a gauge: the next look may succeed
	}
	for _, b := range blobs {
		if info, err := b.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}
