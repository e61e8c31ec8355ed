package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// callTimeout bounds one call; a server that needs longer is broken.
const callTimeout = 30 * time.Second

// maxReply bounds what is read of a reply, in bytes.
const maxReply = 16 << 20

// caller is one client with connections of its own, which it keeps.
type caller struct {
	client *http.Client
	token  string // of operators; empty: none
}

func newCaller(connections int, token string) *caller {
	return &caller{token: token, client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, MaxIdleConns: 0,
	}}}
}

func (c *caller) close() { c.client.CloseIdleConnections() }

// call sends body and decodes the reply, unless into is nil.
func (c *caller) call(ctx context.Context, method, url string, body, into any) error {
	return c.send(ctx, method, url, "", body, into)
}

func (c *caller) send(ctx context.Context, method, url, key string, body, into any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.300s", method, url, resp.Status, data)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

// acquire asks for a demo as an integrator would, with a key that makes the
// request safe to repeat.
func (c *caller) acquire(ctx context.Context, url string) (api.Demo, error) {
	var d api.Demo
	err := c.send(ctx, http.MethodPost, url, rand.Text(), api.AcquireRequest{Template: templateName}, &d)
	if err == nil && d.ID == "" {
		err = fmt.Errorf("%s gave a demo without an id", url)
	}
	return d, err
}
