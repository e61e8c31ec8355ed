// Package placement picks an instance to lease, and a node to restore on, from
// a read-only view.
//
// Everything here is a pure function: equal arguments give equal answers, with
// no clock, no randomness and no map order. The answer is only a proposal; the
// state checks it again when the command that names it is applied, so a policy
// may change at any time without a change of formats.
//
// Invariants: what is offered for a lease is warm, on a node that is up, and
// not left out by the caller; what is offered for a start is an up node with
// room that the caller trusts, and is cold only where no checkpoint is to be
// had.
//
// The package owns no goroutine.
package placement
