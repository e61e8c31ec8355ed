package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// dialTimeout bounds connecting to one endpoint, so that the next gets its
	// turn.
	dialTimeout = 3 * time.Second
	// headerTimeout bounds the wait for an answer: the longest wait in line and
	// some more.
	headerTimeout = 75 * time.Second
	// maxReply bounds what is read of a reply, in bytes.
	maxReply = 64 << 20
	// maxProblem bounds what is read of an error reply, in bytes.
	maxProblem = 1 << 20
	// maxRetryAfter bounds what a server can ask for; quotas last a day at most.
	maxRetryAfter = 24 * time.Hour
)

// ClientOptions configure a [Client].
type ClientOptions struct {
	Endpoints  []string     // base URLs of schedulers, tried in turn
	Token      string       // of operators; empty: none is sent
	HTTPClient *http.Client // nil: one with sane timeouts; redirects are not followed
}

// Client calls the API of schedulers. It is safe for concurrent use.
type Client struct {
	endpoints []string
	token     string
	http      *http.Client
}

// NewClient returns a client. The error has [CodeInvalid] for an endpoint that
// is no base URL.
func NewClient(o ClientOptions) (*Client, error) {
	if len(o.Endpoints) == 0 {
		return nil, Errorf(CodeInvalid, "no endpoint is given; name at least one such as http://127.0.0.1:8080")
	}
	c := &Client{token: o.Token, http: newHTTPClient()}
	for _, e := range o.Endpoints {
		base, err := baseURL(e)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, base)
	}
	if o.HTTPClient != nil {
		given := *o.HTTPClient
		given.CheckRedirect = noRedirect
		c.http = &given
	}
	return c, nil
}

func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			ResponseHeaderTimeout: headerTimeout,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       time.Minute,
		},
		CheckRedirect: noRedirect,
	}
}

// noRedirect keeps tokens where they belong.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// baseURL checks an endpoint and cuts its final slash.
func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err == nil && u.User != nil {
		return "", Errorf(CodeInvalid, "%q has a user; base URLs have none", u.Redacted())
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", Errorf(CodeInvalid, "%q is not a base URL such as http://127.0.0.1:8080", s)
	}
	return strings.TrimSuffix(s, "/"), nil
}

// call is one call of the API.
type call struct {
	method, path string
	body, into   any
	header       http.Header
}

// do makes a call at the endpoints in turn until one gives an answer that
// another could not improve.
func (c *Client) do(ctx context.Context, k call) error {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	var last error
	for _, endpoint := range c.endpoints {
		last = c.at(ctx, endpoint, k, body)
		switch CodeOf(last) {
		case CodeUnavailable, CodeNotLeader, CodeUncertain:
			// Every call here may be repeated: acquires carry a key.
		default:
			return last
		}
		if ctx.Err() != nil {
			return last
		}
	}
	return last
}

func (c *Client) at(ctx context.Context, endpoint string, k call, body []byte) error {
	resp, err := c.send(ctx, endpoint, k, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return decodeReply(endpoint, resp, k.into)
}

// send makes a request and returns a reply that is no error. The caller closes
// its body.
func (c *Client) send(ctx context.Context, endpoint string, k call, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, k.method, endpoint+k.path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(endpoint, err)
	}
	if resp.StatusCode >= 300 {
		defer func() { _ = resp.Body.Close() }()
		return nil, problemOf(resp)
	}
	return resp, nil
}

// unreachable is the error of a call that nobody answered.
func unreachable(endpoint string, err error) *Error {
	return Errorf(CodeUnavailable, "%s did not answer: %w", endpoint, err)
}

func decodeReply(endpoint string, resp *http.Response, into any) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return unreachable(endpoint, err)
	}
	if len(data) > maxReply {
		return Errorf(CodeInternal, "the reply of %s is too long", endpoint)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return Errorf(CodeInternal, "the reply of %s cannot be read: %w", endpoint, err)
	}
	return nil
}

// problemOf turns an error reply into an error.
func problemOf(resp *http.Response) *Error {
	e := &Error{Code: CodeInternal, Status: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s >= 0 {
		e.RetryAfter = time.Duration(min(s, int(maxRetryAfter/time.Second))) * time.Second
	}
	var p Problem
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil || p.Code == "" {
		e.Message = fmt.Sprintf("the answer was %s, and no problem document; is this a scheduler?", resp.Status)
		return e
	}
	e.Code, e.Message, e.Fields = p.Code, cmp.Or(p.Detail, p.Title), p.Fields
	if e.Code == CodeInternal && p.RequestID != "" {
		e.Message += " (request id " + p.RequestID + ")"
	}
	return e
}
