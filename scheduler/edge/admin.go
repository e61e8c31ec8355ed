package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Paths of Caddy's admin API.
const (
	rootPath   = "/config/"
	serverPath = "/config/apps/http/servers/" + serverName
	idPath     = "/id/"
)

const (
	// adminTimeout bounds one admin request. Caddy needs about 0.6 s to load
	// 10,000 routes; the rest is for busy machines.
	adminTimeout = 15 * time.Second
	// adminDial bounds connecting: an edge that is down must not hold up the
	// round of the others.
	adminDial = 2 * time.Second
	// maxReply bounds what is read of a reply, in bytes; a route takes about
	// 500, so this is far above any table that a stock Caddy can serve.
	maxReply = 256 << 20
	// maxErrorText bounds how much of Caddy's explanation is repeated.
	maxErrorText = 500
)

// errChanged means that a write was refused because the configuration is not
// the one that was read before it.
var errChanged = errors.New("configuration changed between read and write")

// statusError is an answer of Caddy that is no success.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("caddy answered %d: %s", e.status, e.text)
}

// admin talks to one admin API.
type admin struct {
	client *http.Client
	base   string
	// host is the Host header, where it is not that of base.
	host string
}

func newAdmin(address string, client *http.Client) (*admin, error) {
	u, err := url.Parse(address)
	switch {
	case err == nil && u.Scheme == "http" && u.Host != "" && strings.Trim(u.Path, "/") == "":
		if client == nil {
			client = adminClient(nil)
		}
		return &admin{client: client, base: "http://" + u.Host}, nil
	case err == nil && u.Scheme == "unix" && u.Host == "" && u.Path != "":
		if client == nil {
			client = adminClient(&u.Path)
		}
		// On a socket Caddy accepts an empty Host header only. Go sends one
		// when the host contains characters that no host can have.
		return &admin{client: client, base: "http://caddy", host: u.Path}, nil
	}
	return nil, fmt.Errorf("admin address %q is neither http://address:port nor unix:///path", address)
}

// adminClient makes no use of proxies and keeps no connection: each reload of
// Caddy closes them, and a write must not meet a closed one.
func adminClient(socket *string) *http.Client {
	dialer := &net.Dialer{Timeout: adminDial}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	if socket != nil {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", *socket)
		}
	}
	return &http.Client{Transport: transport, Timeout: adminTimeout}
}

// do sends one request and returns the body and the ETag.
func (a *admin) do(ctx context.Context, method, path string, body []byte, etag string) (reply []byte, newTag string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if a.host != "" {
		req.Host = a.host
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if etag != "" {
		req.Header.Set("If-Match", etag)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	reply, err = io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, "", err
	}
	if len(reply) > maxReply {
		return nil, "", fmt.Errorf("reply is larger than %d bytes", maxReply)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", &statusError{status: resp.StatusCode, text: errorText(reply)}
	}
	// Caddy streams the configuration and knows the ETag only afterwards, so
	// it comes as a trailer.
	newTag = resp.Header.Get("Etag")
	if newTag == "" {
		newTag = resp.Trailer.Get("Etag")
	}
	return bytes.TrimSpace(reply), newTag, nil
}

func errorText(reply []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	text := strings.TrimSpace(string(reply))
	if json.Unmarshal(reply, &e) == nil && e.Error != "" {
		text = e.Error
	}
	return text[:min(len(text), maxErrorText)]
}

// hasStatus reports whether Caddy answered err with one of the statuses.
func hasStatus(err error, statuses ...int) bool {
	var e *statusError
	if !errors.As(err, &e) {
		return false
	}
	for _, s := range statuses {
		if e.status == s {
			return true
		}
	}
	return false
}

// write changes the configuration if it still has the ETag.
func (a *admin) write(ctx context.Context, method, path string, body []byte, etag string) error {
	if etag == "" {
		return errors.New("caddy sent no ETag; versions before 2.5 are not supported")
	}
	_, _, err := a.do(ctx, method, path, body, etag)
	if hasStatus(err, http.StatusPreconditionFailed) || method == http.MethodDelete && hasStatus(err, http.StatusNotFound) {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	return err
}

// marker reads the marker by its @id. The zero marker means that there is none.
func (a *admin) marker(ctx context.Context) (marker, error) {
	reply, _, err := a.do(ctx, http.MethodGet, idPath+markerID, nil, "")
	// An empty Caddy has no table of ids at all and answers 400 or 404.
	if hasStatus(err, http.StatusNotFound, http.StatusBadRequest) {
		return marker{}, nil
	}
	if err != nil {
		return marker{}, err
	}
	var r servedRoute
	if err := json.Unmarshal(reply, &r); err != nil {
		return marker{}, nil // edited by hand into something else: the same as none
	}
	return r.marker(), nil
}

// server reads the whole server. Where there is none, it returns an absent one
// with the ETag of the whole configuration, so that only one writer creates it.
func (a *admin) server(ctx context.Context) (served, error) {
	reply, etag, err := a.do(ctx, http.MethodGet, serverPath, nil, "")
	if err == nil && !bytes.Equal(reply, []byte("null")) {
		return served{raw: reply, etag: etag}, nil
	}
	// Caddy answers 200 with null, 400 or 404, depending on how much of the
	// path exists.
	if err != nil && !hasStatus(err, http.StatusBadRequest, http.StatusNotFound) {
		return served{}, err
	}
	reply, etag, err = a.do(ctx, http.MethodGet, rootPath, nil, "")
	if err != nil {
		return served{}, err
	}
	var root struct {
		Apps struct {
			HTTP struct {
				Servers map[string]json.RawMessage `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(reply, &root); err != nil {
		return served{}, fmt.Errorf("read configuration: %w", err)
	}
	if raw, ok := root.Apps.HTTP.Servers[serverName]; ok && !bytes.Equal(raw, []byte("null")) {
		return served{}, fmt.Errorf("%w: server %s appeared", errChanged, serverName)
	}
	return served{etag: etag}, nil
}
