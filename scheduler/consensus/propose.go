package consensus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// entriesInFlight is how many log entries of this server wait for a majority
	// at a time. Commands that arrive meanwhile share the next entry: a few
	// entries on their way keep the disks busy, more only make them smaller.
	entriesInFlight = 4
	// maxEntryBytes bounds a shared entry, so that one replication message
	// stays small beside heartbeats.
	maxEntryBytes = 1 << 20
	// enqueueTimeout bounds the wait for Raft's main loop, which stands still
	// while the leader's disk writes.
	enqueueTimeout = time.Second
)

// proposal is a command on its way. Exactly one side moves it out of waiting.
type proposal struct {
	packed state.Packed
	state  atomic.Int32
	answer chan answer // room for one, so that a departed caller stops nobody
}

const (
	proposalWaiting int32 = iota
	proposalTaken         // by a proposer: an answer will come
	proposalGivenUp       // by its caller: never to be written
)

type answer struct {
	result state.Result
	err    error
}

// Propose writes cmd to the log and returns what became of it once this server
// has applied it. A refusal is part of the result, with a nil error. The error
// is an [*api.Error]: [api.CodeNotLeader] and [api.CodeUnavailable] mean that
// the command was not and will not be applied, [api.CodeUncertain] that nobody
// knows, [api.CodeInvalid] that it cannot be written at all. The end of ctx
// gives CodeUnavailable before the command was taken up, and CodeUncertain
// afterwards.
func (n *Node) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	start := time.Now()
	result, err := n.proposeOne(ctx, cmd)
	n.metrics.propose.Observe(time.Since(start).Seconds())
	n.metrics.proposals.WithLabelValues(outcome(result, err)).Inc()
	return result, err
}

func outcome(result state.Result, err error) string {
	switch {
	case err == nil && result.Refusal == nil:
		return outcomeApplied
	case err == nil, api.CodeOf(err) == api.CodeInvalid:
		return outcomeRefused
	case api.CodeOf(err) == api.CodeNotLeader:
		return outcomeNotLeader
	case api.CodeOf(err) == api.CodeUnavailable:
		return outcomeUnavailable
	default:
		return outcomeUncertain
	}
}

func (n *Node) proposeOne(ctx context.Context, cmd state.Command) (state.Result, error) {
	r, ok := n.running()
	if !ok {
		return state.Result{}, unavailable("this scheduler is starting")
	}
	if r.State() != raft.Leader { // cheaper than to wait for Raft to say so
		return state.Result{}, notLeader()
	}
	if !n.View().Permits(cmd.Kind()) {
		return state.Result{}, unavailable("not every scheduler understands the command %s yet; upgrade them all", cmd.Kind())
	}
	packed, err := state.Pack(cmd)
	if err != nil {
		return state.Result{}, err
	}
	p := &proposal{packed: packed, answer: make(chan answer, 1)}
	select {
	case n.queue <- p:
	default:
		return state.Result{}, unavailable("%d commands are waiting to be written already", cap(n.queue))
	}
	select {
	case a := <-p.answer:
		return a.result, a.err
	case <-ctx.Done():
		if p.state.CompareAndSwap(proposalWaiting, proposalGivenUp) {
			return state.Result{}, unavailable("the request was given up before it was written: %w", context.Cause(ctx))
		}
		return state.Result{}, uncertain(context.Cause(ctx))
	case <-n.stopped:
		return n.lastAnswer(p)
	}
}

// lastAnswer is for proposals that meet the end of the node: either a proposer
// has answered before it ended, or none ever looks at the queue again, or it
// hangs in Raft.
func (n *Node) lastAnswer(p *proposal) (state.Result, error) {
	if p.state.CompareAndSwap(proposalWaiting, proposalGivenUp) {
		return state.Result{}, unavailable("this scheduler is stopping")
	}
	select {
	case a := <-p.answer:
		return a.result, a.err
	default:
		return state.Result{}, uncertain(errStopping)
	}
}

// propose is one of the proposers: it takes what waits, writes it as one
// entry, waits for its outcome and hands that out.
func (n *Node) propose(ctx context.Context, r *raft.Raft) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-n.queue:
			if batch := n.gather(p); len(batch) > 0 {
				n.writeEntry(r, batch)
			}
		}
	}
}

// gather takes first and whatever waits behind it, as far as one entry holds.
func (n *Node) gather(first *proposal) []*proposal {
	var batch []*proposal
	size := 0
	take := func(p *proposal) {
		if p.state.CompareAndSwap(proposalWaiting, proposalTaken) {
			batch = append(batch, p)
			size += p.packed.Size()
		}
	}
	take(first)
	for len(batch) < state.MaxBatch && size < maxEntryBytes {
		select {
		case p := <-n.queue:
			take(p)
		default:
			return batch
		}
	}
	return batch
}

func (n *Node) writeEntry(r *raft.Raft, batch []*proposal) {
	results, err := commit(r, batch)
	n.metrics.batch.Observe(float64(len(batch)))
	for i, p := range batch {
		a := answer{err: err}
		if err == nil {
			a.result = results[i]
		}
		p.answer <- a
	}
}

// commit writes one entry with the leader's time and waits until it is applied
// here. The error is an [*api.Error].
func commit(r *raft.Raft, batch []*proposal) ([]state.Result, error) {
	packed := make([]state.Packed, len(batch))
	for i, p := range batch {
		packed[i] = p.packed
	}
	entry, err := state.Encode(time.Now(), packed)
	if err != nil {
		return nil, err
	}
	future := r.Apply(entry, enqueueTimeout)
	if err := future.Error(); err != nil {
		return nil, classify(err)
	}
	switch response := future.Response().(type) {
	case []state.Result:
		if len(response) == len(batch) {
			return response, nil
		}
		return nil, uncertain(fmt.Errorf("%d results for %d commands", len(response), len(batch)))
	case error:
		return nil, uncertain(response)
	default:
		return nil, uncertain(fmt.Errorf("the replica answered with %T", response))
	}
}
