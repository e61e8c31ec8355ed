package podman

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containers/podman/v5/pkg/bindings/images"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
)

// Library makes the checkpoints of a store ready for restores: pages unpacked
// and warm image in Podman's storage.
type Library struct {
	runtime *Runtime
	fetcher *checkpoint.Fetcher

	load sync.Mutex // one image is loaded at a time: it takes the whole disk
}

// Library returns the library of r's store, which fetches by f.
func (r *Runtime) Library(f *checkpoint.Fetcher) *Library { return &Library{runtime: r, fetcher: f} }

// List returns the checkpoints that lie on disk.
func (l *Library) List(context.Context) ([]api.Digest, error) { return l.runtime.store.List() }

// Ensure makes a checkpoint ready: fetched, verified, unpacked, loaded.
func (l *Library) Ensure(ctx context.Context, src api.CheckpointSource) error {
	if err := l.fetcher.Fetch(ctx, src); err != nil {
		return err
	}
	m, err := l.runtime.store.Manifest(src.Digest)
	if err != nil {
		return err
	}
	pages, err := checkpoint.BlobOf(m, checkpoint.PagesBlob)
	if err != nil {
		return err
	}
	dir, err := l.runtime.pages(m)
	if err != nil {
		return err
	}
	if err := l.runtime.store.Unpack(pages, dir); err != nil {
		return err
	}
	l.load.Lock()
	defer l.load.Unlock()
	return l.loadImage(ctx, m)
}

// loadImage makes sure that Podman has the warm image of m.
func (l *Library) loadImage(ctx context.Context, m api.Manifest) error {
	r := l.runtime
	call, cancel := r.client.call(ctx, imageTimeout)
	defer cancel()
	if have, err := images.Exists(call, m.Image, nil); err != nil {
		return fmt.Errorf("look for warm image: %w", err)
	} else if have {
		return nil
	}
	blob, err := checkpoint.BlobOf(m, checkpoint.ImageBlob)
	if err != nil {
		return err
	}
	if err := r.disk.Room(r.graphRoot, blob.Size); err != nil {
		return err
	}
	if err := r.store.Verify(blob); err != nil {
		return err
	}
	f, err := r.store.OpenBlob(blob.Digest)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it is only read
	loaded, err := images.Load(call, f)
	if err != nil {
		return fmt.Errorf("load warm image: %w", err)
	}
	if have, err := images.Exists(call, m.Image, nil); err != nil || !have {
		err = errors.Join(err, fmt.Errorf("the archive holds %v and not image %.12s of the manifest", loaded.Names, m.Image))
		for _, name := range loaded.Names {
			err = errors.Join(err, r.removeImage(ctx, name))
		}
		return err
	}
	return nil
}

// Remove removes a checkpoint with its pages and its warm image. Running
// containers keep the image: removing it fails until they are gone.
func (l *Library) Remove(ctx context.Context, digest api.Digest) error {
	m, err := l.runtime.store.Manifest(digest)
	if err != nil {
		// Without its manifest nobody can use it, whatever else lies around.
		return l.runtime.store.Remove(digest)
	}
	if err := l.runtime.removeImage(ctx, m.Image); err != nil {
		return err
	}
	dir, err := l.runtime.pages(m)
	if err == nil {
		err = os.RemoveAll(dir)
	}
	return errors.Join(err, l.runtime.store.Remove(digest))
}
