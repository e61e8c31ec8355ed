package session

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// encodeRecord leaves out what opens the demo: its ID, which whoever reads the
// record has, and its credentials, which only the replicated state keeps.
func encodeRecord(d api.Demo) (string, error) {
	d.ID, d.Credentials = "", nil
	b, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("encode record: %w", err)
	}
	return string(b), nil
}

func decodeRecord(id api.LeaseID, s string) (api.Demo, error) {
	var d api.Demo
	if err := json.Unmarshal([]byte(s), &d); err != nil {
		return api.Demo{}, fmt.Errorf("decode record: %w", err)
	}
	d.ID, d.Credentials = id, nil
	return d, nil
}

// recordTTL is how long the record of d is worth keeping.
func recordTTL(d api.Demo, kept time.Duration, now time.Time) time.Duration {
	return max(0, d.ExpiresAt.Sub(now)) + kept
}

// queue holds records that are not written yet. When it is full, the oldest is
// dropped: readers then ask the replicated state.
type queue struct {
	size  int
	ready chan struct{} // one place: look again

	mu    sync.Mutex
	demos []api.Demo
}

func newQueue(size int) *queue { return &queue{size: size, ready: make(chan struct{}, 1)} }

// put appends d and reports whether another was dropped for it.
func (q *queue) put(d api.Demo) (dropped bool) {
	q.mu.Lock()
	if dropped = len(q.demos) >= q.size; dropped {
		q.demos = q.demos[1:]
	}
	q.demos = append(q.demos, d)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return dropped
}

// take removes the oldest records, n at most.
func (q *queue) take(n int) []api.Demo {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.demos))
	batch := q.demos[:n:n]
	if q.demos = q.demos[n:]; len(q.demos) == 0 {
		q.demos = nil // let go of the array
	}
	return batch
}

// giveBack puts a batch that was not written in front again, as far as it fits,
// newest first.
func (q *queue) giveBack(batch []api.Demo) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped = max(0, len(batch)-(q.size-len(q.demos)))
	q.demos = append(append(make([]api.Demo, 0, len(batch)-dropped+len(q.demos)), batch[dropped:]...), q.demos...)
	return dropped
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.demos)
}
