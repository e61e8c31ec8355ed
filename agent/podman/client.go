package podman

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/errorhandling"
)

// Each bound keeps one call from hanging for ever with Podman. They are about
// ten times what the call takes on a loaded machine.
const (
	connectTimeout    = 10 * time.Second // connect and ping; a socket may have to start the service
	queryTimeout      = 20 * time.Second // list, inspect, info
	createTimeout     = 30 * time.Second // create, init, start, stop, remove
	restoreTimeout    = 60 * time.Second // one restore call
	checkpointTimeout = 2 * time.Minute  // one checkpoint call
	imageTimeout      = 10 * time.Minute // commit, export, load, import of an image
	cleanupTimeout    = 45 * time.Second // removing what a failed step left, after its context ended
)

// idleConnections is how many connections to the socket are kept: about what
// the parallel starts of one node use.
const idleConnections = 16

// client calls Podman's API.
type client struct {
	uri  string
	conn context.Context // carries the connection, which is how the library wants it
}

func connect(ctx context.Context, socket string) (*client, error) {
	uri := "unix://" + socket
	conn, err := dial(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("connect to podman at %s: %w", socket, err)
	}
	return &client{uri: uri, conn: conn}, nil
}

// dial makes a connection whose values outlive the deadline of dialling.
func dial(ctx context.Context, uri string) (context.Context, error) {
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := bindings.NewConnection(bounded, uri)
	if err != nil {
		return nil, err
	}
	c, err := bindings.GetClient(conn)
	if err != nil {
		return nil, err
	}
	transport, ok := c.Client.Transport.(*http.Transport)
	if !ok {
		return nil, errors.New("podman's client library has an unknown transport")
	}
	transport.MaxIdleConnsPerHost = idleConnections
	return conn, nil
}

// callContext lives as long as the caller says and carries the connection.
type callContext struct {
	context.Context
	conn context.Context
}

func (c callContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.conn.Value(key)
}

// call returns a context for one call of the API.
func (c *client) call(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("podman did not answer within %s", timeout))
	return callContext{Context: ctx, conn: c.conn}, cancel
}

// private returns a connection for one call that takes its socket over. The
// library replaces the transport of such a connection, so it is not shared;
// and it does not end with its context, so the socket is closed when ctx ends.
func (c *client) private(ctx context.Context) (context.Context, error) {
	conn, err := dial(ctx, c.uri)
	if err != nil {
		return nil, fmt.Errorf("connect to podman: %w", err)
	}
	own, err := bindings.GetClient(conn)
	if err != nil {
		return nil, err
	}
	transport, ok := own.Client.Transport.(*http.Transport)
	if !ok {
		return nil, errors.New("podman's client library has an unknown transport")
	}
	transport.CloseIdleConnections()
	plain := transport.DialContext
	transport.DialContext = func(dialCtx context.Context, network, address string) (net.Conn, error) {
		socket, err := plain(dialCtx, network, address)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = socket.Close() })
		}
		return socket, err
	}
	return callContext{Context: ctx, conn: conn}, nil
}

// notFound reports whether Podman says that the thing does not exist.
func notFound(err error) bool {
	var e *errorhandling.ErrorModel
	return errors.As(err, &e) && e.ResponseCode == http.StatusNotFound
}

// stageError is an error with the stage it happened in.
type stageError struct {
	stage string
	err   error
}

func (e *stageError) Error() string { return e.stage + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// Stage returns the name of the stage, for metrics.
func (e *stageError) Stage() string { return e.stage }

func inStage(stage string, err error) error {
	if err == nil {
		return nil
	}
	return &stageError{stage: stage, err: err}
}
