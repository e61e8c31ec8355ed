// Package consensus owns the Raft node: FSM shim, propose, barrier, leadership
// scope.
//
// It turns concurrent proposals into few log entries, applies the agreed log
// to a [state.View], and tells who leads. It decides nothing about leases: that
// is [state.Apply]. Outside this package Raft does not exist; callers see typed
// results and three kinds of failure: refused (part of the result), not done
// ([api.CodeNotLeader], [api.CodeUnavailable]) and nobody knows
// ([api.CodeUncertain]).
//
// Invariants: the published view is always the outcome of a prefix of the
// log; a replica that meets an entry it does not understand, or a disk that
// refuses a write, stops and says so; work of one term has returned before
// that of the next begins.
//
// [Node.Run] owns every goroutine. The FSM goroutine of the Raft library alone
// replaces the view.
package consensus
