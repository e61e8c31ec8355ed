package httpd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// writeTimeout drops watchers that do not read: each holds a connection
	// and a goroutine.
	writeTimeout = 5 * time.Second
	// reconnectAfter is when browsers connect again after a stream broke.
	reconnectAfter = 2 * time.Second
)

// startEvents begins a reply of server-sent events.
func startEvents(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies that understand it pass events on at once
	w.WriteHeader(http.StatusOK)
}

// eventWriter writes events, each in time or not at all.
type eventWriter struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newEventWriter(w http.ResponseWriter) *eventWriter {
	return &eventWriter{w: w, rc: http.NewResponseController(w)}
}

// write writes whole lines and flushes them.
func (e *eventWriter) write(p []byte) error {
	if err := e.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("set the write deadline: %w", err)
	}
	if _, err := e.w.Write(p); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	if err := e.rc.Flush(); err != nil {
		return fmt.Errorf("flush an event: %w", err)
	}
	return nil
}

func (e *eventWriter) retry() error {
	return e.write(fmt.Appendf(nil, "retry: %d\n\n", reconnectAfter.Milliseconds()))
}

func (e *eventWriter) comment() error { return e.write([]byte(": still here\n\n")) }

// event writes the status of a demo. Its ID lets a watcher that lost the
// stream say what it knows.
func (e *eventWriter) event(name string, d api.Demo, seconds int64) error {
	data, err := json.Marshal(api.Status{ID: d.ID, State: d.State, ExpiresAt: d.ExpiresAt, RemainingSeconds: seconds, Epoch: d.Epoch})
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	return e.write(fmt.Appendf(nil, "id: %d-%d\nevent: %s\ndata: %s\n\n", d.Revision, seconds, name, data))
}

// lastSeen reports whether the ID of a watcher's last event is of a revision.
func lastSeen(id string, revision uint64) bool {
	seen, _, ok := strings.Cut(id, "-")
	n, err := strconv.ParseUint(seen, 10, 64)
	return ok && err == nil && n == revision
}
