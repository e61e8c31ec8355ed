package lease

import (
	"context"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// retryAfter is when an election is likely over.
const retryAfter = time.Second

func notLeader() *api.Error {
	return &api.Error{
		Code: api.CodeNotLeader, Message: "another scheduler leads, or none; ask again shortly", RetryAfter: retryAfter,
	}
}

// noDemo answers for a lease that does not exist. It does not repeat the ID,
// which is a secret if it was only mistyped.
func noDemo() *api.Error {
	return api.Errorf(api.CodeNotFound, "no demo has this id, or it ended a while ago; acquire a new one with POST /api/v1/demo/acquire")
}

func unavailable(format string, args ...any) *api.Error {
	e := api.Errorf(api.CodeUnavailable, format, args...)
	e.RetryAfter = retryAfter
	return e
}

func givenUp(ctx context.Context) *api.Error {
	return unavailable("the request was given up while it waited: %w", context.Cause(ctx))
}

func invalidField(field, reason string) error {
	return api.InvalidFields("the request is not valid", []api.FieldError{{Field: field, Reason: reason}})
}
