package consensus

import (
	"bufio"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/scheduler/state"
)

// fsm connects the log to the state. Raft calls it from one goroutine, but
// Persist runs beside it.
type fsm struct {
	view    atomic.Pointer[state.View]
	metrics *nodeMetrics
	fatal   func(error)
	halted  error // why no further entry is applied; owned by Raft's FSM goroutine

	mu          sync.Mutex
	subscribers map[chan struct{}]struct{}
}

var _ raft.BatchingFSM = (*fsm)(nil)

func newFSM(m *nodeMetrics, fatal func(error)) *fsm {
	f := &fsm{metrics: m, fatal: fatal, subscribers: map[chan struct{}]struct{}{}}
	f.view.Store(state.New())
	return f
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The response to a command entry is a
// []state.Result, or an error once the replica is halted.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			responses[i] = f.apply(l)
		}
	}
	f.notify()
	return responses
}

func (f *fsm) apply(l *raft.Log) any {
	if f.halted != nil {
		return f.halted
	}
	start := time.Now()
	envelopes, err := state.Decode(l.Data)
	if err != nil {
		f.halted = fmt.Errorf("log entry %d of term %d cannot be applied, so this replica stops: %w", l.Index, l.Term, err)
		f.fatal(f.halted)
		return f.halted
	}
	view, results := state.ApplyAll(f.view.Load(), envelopes)
	f.view.Store(view)
	f.metrics.apply.Observe(time.Since(start).Seconds())
	return results
}

// Snapshot implements raft.FSM: a view is its own snapshot. A halted replica
// takes none, because its index would name entries that were not applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.halted != nil {
		return nil, f.halted
	}
	return &viewSnapshot{view: f.view.Load(), metrics: f.metrics}, nil
}

// Restore implements raft.FSM. The old view stays until the new one is
// complete.
func (f *fsm) Restore(r io.ReadCloser) error {
	start := time.Now()
	view, err := state.Read(r)
	if err != nil {
		return err
	}
	f.view.Store(view)
	f.metrics.snapshotTook("restore", start)
	f.notify()
	return nil
}

// viewSnapshot is a view on its way to disk.
type viewSnapshot struct {
	view    *state.View
	metrics *nodeMetrics
}

// Persist implements raft.FSMSnapshot.
func (s *viewSnapshot) Persist(sink raft.SnapshotSink) error {
	defer s.metrics.snapshotTook("persist", time.Now())
	w := bufio.NewWriterSize(sink, 1<<20)
	if err := state.Write(w, s.view); err != nil {
		return err // the caller cancels the sink
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Release implements raft.FSMSnapshot.
func (s *viewSnapshot) Release() {}

func (f *fsm) subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers[ch] = struct{}{}
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subscribers, ch)
	}
}

// notify never blocks: a full channel already says "look again".
func (f *fsm) notify() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.subscribers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
