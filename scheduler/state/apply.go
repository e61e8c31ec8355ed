package state

import (
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Envelope is a command with the leader's time at which it was proposed.
type Envelope struct {
	At      time.Time
	Command Command
}

// Apply returns the view after cmd, proposed at the leader's time at, and what
// became of it. v is not changed. A refused command changes revision and time
// only.
func Apply(v *View, at time.Time, cmd Command) (*View, Result) {
	x := begin(v)
	r := x.apply(Envelope{At: at, Command: cmd})
	return x.commit(), r
}

// ApplyAll applies the commands of one log entry in their order, as Apply
// would one by one, but builds only the last view. The results are in the
// order of the commands.
func ApplyAll(v *View, envelopes []Envelope) (*View, []Result) {
	x := begin(v)
	results := make([]Result, len(envelopes))
	for i, e := range envelopes {
		results[i] = x.apply(e)
	}
	return x.commit(), results
}

func (x *tx) apply(e Envelope) Result {
	x.revision++
	if at := utc(e.At); at.After(x.now) {
		x.now = at
	}
	return e.Command.apply(x)
}

// utc returns t as it comes back from a log or a snapshot: in UTC and without
// a monotonic reading, so that every replica holds equal values.
func utc(t time.Time) time.Time { return t.Round(0).UTC() }

// Refusals. Their text is part of the reply to a visitor or an operator, not
// of the state, so it may be improved at any time.

func refuse(code api.Code, format string, args ...any) Result {
	return Result{Refusal: api.Errorf(code, format, args...)}
}

func invalid(format string, args ...any) Result  { return refuse(api.CodeInvalid, format, args...) }
func notFound(format string, args ...any) Result { return refuse(api.CodeNotFound, format, args...) }
func conflict(format string, args ...any) Result { return refuse(api.CodeConflict, format, args...) }

// maxKey bounds what is used as a key, in bytes.
const maxKey = 512

// validKey reports whether s can be a key or part of one: indexes separate
// their parts by a zero byte. The stricter rules for names belong to the
// proposer: rules that may change must not decide here, where a log of last
// year has to give last year's state.
func validKey(s string) bool {
	return s != "" && len(s) <= maxKey && !strings.Contains(s, "\x00")
}
