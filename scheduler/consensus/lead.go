package consensus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// barrierRetry is how long a new leader waits before it tries its barrier
// again, while a transfer of leadership or a slow disk is in the way.
const barrierRetry = 100 * time.Millisecond

// scope is one leadership of this server.
type scope struct {
	ctx         context.Context
	cancel      context.CancelCauseFunc
	established chan struct{} // closed once everything of earlier terms is applied here
	term        uint64        // set before established is closed
}

// Lead runs fn for every term that this server leads, one after the other,
// until ctx ends. fn starts after a barrier: the view holds everything of
// earlier terms. Its context is cancelled, with the reason as its cause, when
// leadership is lost, and the next term waits until fn has returned. fn may
// return nil early; an error that it returns while it still leads ends Lead,
// which otherwise returns nil.
func (n *Node) Lead(ctx context.Context, fn func(ctx context.Context, term uint64) error) error {
	var last *scope
	for {
		s, changed := n.leadership()
		if s == nil || s == last {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		last = s
		select {
		case <-s.established:
		case <-s.ctx.Done():
			continue
		case <-ctx.Done():
			return nil
		}
		if err := n.leadTerm(ctx, s, fn); err != nil {
			return err
		}
	}
}

// leadTerm runs fn under both the caller's context and the leadership.
func (n *Node) leadTerm(ctx context.Context, s *scope, fn func(context.Context, uint64) error) error {
	termCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) }) //nolint:contextcheck // two contexts end this one: the caller and the leadership
	defer stop()
	err := fn(termCtx, s.term)
	if err == nil || termCtx.Err() != nil {
		return nil // what goes wrong because the role was lost is no error
	}
	return err
}

// leadership returns the current scope, nil where another leads, and a channel
// that is closed when it changes.
func (n *Node) leadership() (*scope, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.scope, n.changed
}

func (n *Node) setScope(s *scope) (old *scope) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, n.scope = n.scope, s
	close(n.changed)
	n.changed = make(chan struct{})
	return old
}

func (n *Node) endScope(cause error) {
	if old := n.setScope(nil); old != nil {
		old.cancel(cause)
	}
}

// watchLeadership turns Raft's notices into scopes until ctx ends. It never
// waits for anything else, because Raft waits for it.
func (n *Node) watchLeadership(ctx context.Context, notify <-chan bool) {
	var establishing sync.WaitGroup
	defer establishing.Wait()
	for {
		select {
		case <-ctx.Done():
			n.endScope(context.Cause(ctx))
			return
		case leads := <-notify:
			n.endScope(errLeadershipLost)
			if !leads {
				n.logger.Info("leadership ended", "term", n.raft.CurrentTerm())
				continue
			}
			s := &scope{established: make(chan struct{})}
			s.ctx, s.cancel = context.WithCancelCause(ctx)
			n.setScope(s)
			establishing.Go(func() { n.establish(s) }) // ends with its scope
		}
	}
}

// establish passes the barrier of a new leader. The term is that in which the
// barrier was passed: terms only rise, so reading the same one before and
// after proves that this server led in it.
func (n *Node) establish(s *scope) {
	for s.ctx.Err() == nil {
		before := n.raft.CurrentTerm()
		err := n.await(s.ctx, func(r *raft.Raft) raft.Future { return r.Barrier(enqueueTimeout) })
		if err == nil && n.raft.CurrentTerm() == before {
			s.term = before
			close(s.established)
			n.logger.Info("leadership established", "term", before)
			return
		}
		if err != nil && !errors.Is(err, raft.ErrLeadershipLost) && s.ctx.Err() == nil {
			n.logger.Warn("the barrier of a new leader failed; trying again", "term", before, "err", err)
		}
		timer := time.NewTimer(barrierRetry)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
		}
	}
}
