package consensus

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/api"
)

// retryAfter is when an election is likely over, or a queue shorter.
const retryAfter = time.Second

// errLeadershipLost is the cause with which work of a term is cancelled.
var errLeadershipLost = errors.New("this scheduler does not lead any more")

// errStopping is the cause with which a node stops its parts.
var errStopping = errors.New("this scheduler is stopping")

func unavailable(format string, args ...any) *api.Error {
	e := api.Errorf(api.CodeUnavailable, format, args...)
	e.RetryAfter = retryAfter
	return e
}

func notLeader() *api.Error {
	return &api.Error{
		Code: api.CodeNotLeader, Message: "another scheduler leads, or none; ask again shortly",
		RetryAfter: retryAfter, Err: raft.ErrNotLeader,
	}
}

func uncertain(err error) *api.Error {
	return &api.Error{
		Code:       api.CodeUncertain,
		Message:    "nobody knows yet whether this was done; repeat it with the same Idempotency-Key",
		RetryAfter: retryAfter, Err: err,
	}
}

// classify says what the error of a proposal means. Only errors that Raft
// returns before it wrote anything are certain; every other, known or not,
// may have left an entry behind that a later leader commits.
func classify(err error) *api.Error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, raft.ErrNotLeader):
		return notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return unavailable("the disk of the leader is too slow: %w", err)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return unavailable("another scheduler is about to lead: %w", err)
	default:
		return uncertain(err)
	}
}

// harmless is classify for requests that change nothing, so that nobody has to
// wonder whether they were done. It keeps nil.
func harmless(err error) error {
	if err == nil {
		return nil
	}
	e := classify(err)
	switch {
	case e.Code != api.CodeUncertain:
		return e
	case errors.Is(err, raft.ErrLeadershipLost):
		return notLeader()
	default:
		return unavailable("the Raft group gave no answer: %w", err)
	}
}
