package podman

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// requestTimeout bounds one request to an instance. A first page after a
	// cold boot may take seconds.
	requestTimeout = 15 * time.Second
	// probeTimeout bounds how long a restored instance may take until its page
	// is good: it was good when it was checkpointed.
	probeTimeout = 15 * time.Second
	// probePause is between two tries; short, because it adds to every start.
	probePause = 10 * time.Millisecond
	// maxPage bounds what is read of a page.
	maxPage = 4 << 20
)

// prober sends requests to instances.
type prober struct {
	client *http.Client
}

func newProber() *prober {
	return &prober{client: &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a redirect is an answer to judge, not to follow
		},
	}}
}

// get fetches a whole page of an instance as a visitor of host would.
func (p *prober) get(ctx context.Context, at netip.AddrPort, host, path string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+path, nil)
	if err != nil {
		return nil, err
	}
	req.Host = host
	req.Header.Set("User-Agent", "demo-multiplexer-agent")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxPage))
	return resp, errors.Join(err, resp.Body.Close())
}

// until repeats try until it succeeds, and returns its last error otherwise.
func until(ctx context.Context, timeout time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not good within %s", timeout))
	defer cancel()
	pause := time.NewTicker(probePause)
	defer pause.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-pause.C:
		}
	}
}

// healthy waits for the health check of a template.
func (p *prober) healthy(ctx context.Context, at netip.AddrPort, h api.HealthCheck) error {
	return until(ctx, h.Timeout.D(), func(ctx context.Context) error {
		resp, err := p.get(ctx, at, hostName, h.Path) //nolint:bodyclose // get has read and closed it
		if err == nil && resp.StatusCode != h.Status {
			err = fmt.Errorf("GET %s answered %d, not %d", h.Path, resp.StatusCode, h.Status)
		}
		return err
	})
}

// pageOf returns the path of the page that proves a template: the first page
// that its warm-up asks for, otherwise the health check.
func pageOf(t api.Template) string {
	if len(t.Warmup) > 0 {
		return t.Warmup[0].Path
	}
	return t.Health.Path
}

// good waits until the template's page is served for the instance's own host.
func (p *prober) good(ctx context.Context, at netip.AddrPort, t api.Template, host string) error {
	path := pageOf(t)
	return until(ctx, probeTimeout, func(ctx context.Context) error {
		resp, err := p.get(ctx, at, host, path) //nolint:bodyclose // get has read and closed it
		if err != nil {
			return err
		}
		return judge(resp, path, t.Health, host)
	})
}

// judge refuses errors, and redirects that lead to another host: an instance
// that still believes in the host name of its golden copy.
func judge(resp *http.Response, path string, h api.HealthCheck, host string) error {
	status := resp.StatusCode
	switch {
	case path == h.Path && status == h.Status, status >= 200 && status < 300:
		return nil
	case path == h.Path || status < 300 || status >= 400:
		return fmt.Errorf("GET %s answered %d", path, status)
	}
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || to.Hostname() != "" && to.Hostname() != host {
		return fmt.Errorf("GET %s redirects to another host: %q", path, resp.Header.Get("Location"))
	}
	return nil
}

// warmUp sends the template's warm-up requests, because the first visitor must
// never be the first request.
func (p *prober) warmUp(ctx context.Context, at netip.AddrPort, t api.Template) error {
	for _, r := range t.Warmup {
		resp, err := p.get(ctx, at, hostName, r.Path) //nolint:bodyclose // get has read and closed it
		if err != nil {
			return fmt.Errorf("warm-up request: %w", err)
		}
		if resp.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("warm-up request GET %s answered %d", r.Path, resp.StatusCode)
		}
	}
	return nil
}
