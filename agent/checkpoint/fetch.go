package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// stallTimeout ends a transfer that brings nothing any more: the peer may
	// have died without a word.
	stallTimeout = 10 * time.Second
	// manifestTimeout bounds asking a peer for a manifest.
	manifestTimeout = 10 * time.Second
)

// Fetcher fetches checkpoints from peers into a store.
type Fetcher struct {
	Store     *Store
	HostClass api.HostClass // nothing of another class is fetched
	Token     string        // of the cluster
	Client    *http.Client  // without an overall timeout: transfers are long
	Bandwidth api.Bytes     // per second and transfer; 0 is no limit
	// Slots bounds transfers at the same time.
	Slots chan struct{}
}

// NewFetcher returns a fetcher with room for a number of transfers at a time.
func NewFetcher(s *Store, class api.HostClass, token string, transfers int, bandwidth api.Bytes) *Fetcher {
	return &Fetcher{
		Store: s, HostClass: class, Token: token, Bandwidth: bandwidth,
		Slots: make(chan struct{}, transfers),
		Client: &http.Client{Transport: &http.Transport{
			ResponseHeaderTimeout: stallTimeout,
			IdleConnTimeout:       time.Minute,
			DisableCompression:    true, // ranges are of the content as it is
		}},
	}
}

// Fetch makes sure that the store has a checkpoint, verified. Sources are
// tried in their order; what one of them sent is continued from the next.
func (f *Fetcher) Fetch(ctx context.Context, src api.CheckpointSource) (err error) {
	done := f.Store.Writing()
	defer func() { err = errors.Join(err, done()) }()

	m, raw, err := f.manifest(ctx, src)
	if err != nil {
		return err
	}
	if m.HostClass != f.HostClass {
		return fmt.Errorf("checkpoint %.12s is of host class %s, and this node is %s", src.Digest, m.HostClass, f.HostClass)
	}
	if m.For != src.For {
		return fmt.Errorf("checkpoint %.12s is for %s revision %d, not for %s revision %d",
			src.Digest, m.For.Name, m.For.Revision, src.For.Name, src.For.Revision)
	}
	for _, b := range m.Blobs {
		if err := f.blob(ctx, b, src.Sources); err != nil {
			return err
		}
	}
	return f.Store.putRaw(raw, src.Digest)
}

// manifest returns the manifest from the store or from the first source that
// has it.
func (f *Fetcher) manifest(ctx context.Context, src api.CheckpointSource) (api.Manifest, []byte, error) {
	raw, err := f.Store.RawManifest(src.Digest)
	if err == nil {
		var m api.Manifest
		if m, err = decode(raw, src.Digest); err == nil {
			return m, raw, nil
		}
	}
	errs := []error{err}
	for _, source := range src.Sources {
		raw, err := f.getManifest(ctx, source, src.Digest)
		if err == nil {
			var m api.Manifest
			if m, err = decode(raw, src.Digest); err == nil {
				return m, raw, nil
			}
		}
		errs = append(errs, fmt.Errorf("from %s: %w", source, err))
	}
	return api.Manifest{}, nil, fmt.Errorf("fetch manifest: %w", errors.Join(errs...))
}

func (f *Fetcher) get(ctx context.Context, source, kind string, d api.Digest, from int64) (*http.Response, error) {
	u, err := url.JoinPath(source, "v1", kind, string(d))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+f.Token)
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	return f.Client.Do(req)
}

func (f *Fetcher) getManifest(ctx context.Context, source string, d api.Digest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
	defer cancel()
	resp, err := f.get(ctx, source, "checkpoints", d, 0)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxManifest))
}

// blob makes sure that the store has one blob.
func (f *Fetcher) blob(ctx context.Context, b api.Blob, sources []string) error {
	if info, err := os.Stat(f.Store.blobPath(b.Digest)); err == nil && info.Size() == b.Size {
		return nil
	}
	select {
	case f.Slots <- struct{}{}:
		defer func() { <-f.Slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	partial := f.Store.path("partial", string(b.Digest))
	var have int64
	if info, err := os.Stat(partial); err == nil {
		have = info.Size()
	}
	if err := f.Store.disk.Room(f.Store.dir, max(b.Size-have, 0)); err != nil {
		return err
	}
	errs := []error{}
	for _, source := range sources {
		err := f.transfer(ctx, b, source, partial)
		if err == nil {
			err = f.accept(b, partial)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("from %s: %w", source, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(sources) == 0 {
		errs = append(errs, errors.New("no other node has it"))
	}
	return fmt.Errorf("fetch %s: %w", b.Name, errors.Join(errs...))
}

// transfer appends to the partial file what a source has and we have not.
func (f *Fetcher) transfer(ctx context.Context, b api.Blob, source, partial string) (err error) {
	file, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	have, err := file.Seek(0, io.SeekEnd)
	if err != nil || have >= b.Size {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := f.get(ctx, source, "blobs", b.Digest, have)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
	case http.StatusOK: // the whole blob: a peer may ignore ranges
		if have, err = 0, file.Truncate(0); err != nil {
			return err
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
	default:
		return fmt.Errorf("answered %s", resp.Status)
	}
	body := newPaced(ctx, resp.Body, cancel, f.Bandwidth)
	defer body.stop()
	counted := &counter{w: file, disk: f.Store.disk, dir: f.Store.dir}
	n, err := io.Copy(counted, io.LimitReader(body, b.Size-have+1))
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case have+n != b.Size:
		return fmt.Errorf("sent %d bytes of %d", have+n, b.Size)
	}
	return nil
}

// accept verifies a complete partial file and makes it a blob. One that is
// corrupt is removed: the next source starts anew.
func (f *Fetcher) accept(b api.Blob, partial string) error {
	file, err := os.OpenFile(partial, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // publish has synced it
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if hex.EncodeToString(hash.Sum(nil)) != string(b.Digest) {
		return errors.Join(fmt.Errorf("%s is corrupt: its content does not have digest %.12s", b.Name, b.Digest), os.Remove(partial))
	}
	return f.Store.publish(file, f.Store.blobPath(b.Digest))
}

var errStalled = errors.New("the peer sent nothing for " + stallTimeout.String())

// paced reads no faster than a limit and cancels a transfer that stalls.
type paced struct {
	ctx   context.Context // of the transfer, whose lifetime this reader shares
	r     io.Reader
	limit api.Bytes
	began time.Time
	n     int64

	stop  func() bool
	touch func() bool
}

func newPaced(ctx context.Context, r io.Reader, cancel context.CancelCauseFunc, limit api.Bytes) *paced {
	timer := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	return &paced{
		ctx: ctx, r: r, limit: limit, began: time.Now(),
		stop: timer.Stop, touch: func() bool { return timer.Reset(stallTimeout) },
	}
}

func (p *paced) Read(b []byte) (int, error) {
	if p.limit > 0 {
		due := p.began.Add(time.Duration(float64(p.n) / float64(p.limit) * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			p.stop() // waiting by our own will is no stall
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-p.ctx.Done():
				return 0, context.Cause(p.ctx)
			}
			p.touch()
		}
	}
	n, err := p.r.Read(b)
	p.n += int64(n)
	if n > 0 {
		p.touch()
	}
	return n, err
}
