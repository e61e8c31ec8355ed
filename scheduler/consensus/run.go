package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// notifyBuffer takes the few leadership changes that can happen while the
// watcher is busy; Raft stands still when it is full.
const notifyBuffer = 16

// Run opens the data directory, takes part in the group until ctx ends, hands
// over leadership and closes everything. Its error says why it could not start
// or had to stop: a replica that cannot go on correctly does not go on.
func (n *Node) Run(ctx context.Context) (err error) {
	if n.ran.Swap(true) {
		return errors.New("a consensus node runs only once")
	}
	logger := bridge(n.logger) //nolint:contextcheck // asking a handler for its level needs no context
	p, err := open(n.o, logger, n.fail)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()

	notify := make(chan bool, notifyBuffer)
	c := n.o.raftConfig()
	c.Logger, c.NotifyCh = logger, notify
	r, err := newRaft(c, n.fsm, p)
	if err != nil {
		return err
	}
	n.raft, n.relay = r, p.transport

	var parts sync.WaitGroup
	partsCtx, stopParts := context.WithCancelCause(context.WithoutCancel(ctx))
	defer parts.Wait()
	defer stopParts(errStopping)
	parts.Go(func() { p.transport.run(partsCtx) })
	parts.Go(func() { n.watchLeadership(partsCtx, notify) })

	var proposers sync.WaitGroup
	proposersCtx, stopProposers := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopProposers(errStopping)
	for range entriesInFlight {
		proposers.Go(func() { n.propose(proposersCtx, r) })
	}
	close(n.started)
	n.logger.Info("consensus started", "server", n.o.ID, "address", p.transport.LocalAddr())

	select {
	case <-ctx.Done():
		n.handOver(context.WithoutCancel(ctx))
	case err = <-n.fatal:
	}
	n.refuseCalls()
	stopProposers(errStopping)
	if !drained(&proposers, &n.calls) {
		n.logger.Warn("some proposals got no answer from raft in time")
	}
	close(n.stopped)
	n.endScope(errStopping)
	return errors.Join(err, shutdown(r))
}

// newRaft starts the library. It panics where it cannot read its own log; that
// is an error of the disk, not of the program.
func newRaft(c *raft.Config, f *fsm, p *parts) (r *raft.Raft, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the log cannot be read: %v", cause)
		}
	}()
	r, err = raft.NewRaft(c, f, p.log, p.guard, p.snapshots, p.transport)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	return r, nil
}

// handOver lets another server lead before this one goes, so that nobody has
// to wait for an election timeout. The library bounds it by that same timeout.
func (n *Node) handOver(ctx context.Context) {
	if n.raft.State() != raft.Leader || len(n.Servers()) < 2 {
		return
	}
	if err := n.TransferLeadership(ctx); err != nil {
		n.logger.Warn("leadership was not handed over; the others elect a leader", "err", err)
	}
}

func (n *Node) refuseCalls() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopping = true
}

// drained waits for the groups, at most drainTimeout.
func drained(groups ...*sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		for _, g := range groups {
			g.Wait()
		}
		close(done)
	}()
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func shutdown(r *raft.Raft) error {
	done := make(chan error, 1)
	go func() { done <- r.Shutdown().Error() }()
	timer := time.NewTimer(shutdownTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("raft did not stop within %s; its disk may hang", shutdownTimeout)
	}
}
