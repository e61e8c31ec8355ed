package checkpoint

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Pack writes the named files and directories below dir as a tar. What does
// not exist is left out. Equal files give equal tars.
func Pack(w io.Writer, dir string, names ...string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { _ = root.Close() }() // it is only read
	tw := tar.NewWriter(w)
	for _, name := range names {
		if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		err := fs.WalkDir(root.FS(), name, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return packOne(tw, root, path, e)
		})
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

func packOne(tw *tar.Writer, root *os.Root, path string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: path, Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case e.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
		return tw.WriteHeader(h)
	case info.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	default:
		return nil // CRIU leaves a link to the log directory; pages are files
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return errors.Join(err, f.Close())
}

// Unpack extracts the pages of a checkpoint into dir, which appears complete
// or not at all. The blob's digest is verified on the way. It is no error if
// dir exists.
func (s *Store) Unpack(blob api.Blob, dir string) (err error) {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("unpack pages: %w", err)
	}
	if err := s.disk.Room(parent, blob.Size); err != nil {
		return err
	}
	f, err := s.OpenBlob(blob.Digest)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it is only read
	tmp, err := os.MkdirTemp(parent, unpackPrefix)
	if err != nil {
		return fmt.Errorf("unpack pages: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("unpack pages: %w", err), os.RemoveAll(tmp))
		}
	}()
	hash := sha256.New()
	tee := io.TeeReader(f, hash)
	if err := extract(tee, tmp); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != string(blob.Digest) {
		return s.corrupt(blob)
	}
	return os.Rename(tmp, dir)
}

// unpackPrefix marks directories that are not complete.
const unpackPrefix = ".unpack-"

// SweepPages removes what an interrupted Unpack left below dir.
func SweepPages(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unpackPrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// extract unpacks regular files and directories; nothing else belongs into
// pages, and nothing may leave dir.
func extract(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // it is only read
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(filepath.Clean(h.Name), 0o700)
		case tar.TypeReg:
			err = extractFile(root, h, tr)
		default:
			err = fmt.Errorf("%q has type %q, which does not belong into pages", h.Name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func extractFile(root *os.Root, h *tar.Header, r io.Reader) error {
	f, err := root.OpenFile(filepath.Clean(h.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// corrupt removes a blob whose content is not what its name says, so that it
// is fetched again, and returns the error that says so.
func (s *Store) corrupt(blob api.Blob) error {
	err := fmt.Errorf("%s is corrupt: its content does not have digest %.12s; it was removed and will be fetched again", blob.Name, blob.Digest)
	return errors.Join(err, os.Remove(s.blobPath(blob.Digest)))
}

// Verify reads a whole blob and removes it if it is corrupt.
func (s *Store) Verify(blob api.Blob) error {
	f, err := s.OpenBlob(blob.Digest)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it is only read
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	if err != nil {
		return fmt.Errorf("verify %s: %w", blob.Name, err)
	}
	if n != blob.Size || hex.EncodeToString(hash.Sum(nil)) != string(blob.Digest) {
		return s.corrupt(blob)
	}
	return nil
}
