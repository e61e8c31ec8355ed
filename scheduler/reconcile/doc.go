// Package reconcile runs the leader-only loops: plan from a view, then
// execute.
//
// [Reconciler.Lead] runs everything that a leader does for one term, and
// returns when all of it has ended: grace and expiry of leases, one link per
// agent, moves of leases whose instance is gone, the warm pools with their
// checkpoints, and the routes of every edge.
//
// Each loop observes, plans by a pure function and proposes commands. It is
// woken by signals and by a timer with jitter, so that a lost signal or a
// failed proposal heals within one period.
//
// Invariants:
//
//   - Nothing is started on a node before the state has a record of it.
//   - Nothing is concluded from the absence of an instance unless the node has
//     accepted a Desired that did not name it any more.
//   - A node that only refuses to answer keeps its leases for longer than one
//     that is silent: its containers most likely still serve.
//   - An instance that is leased is never ended here: only its lease is.
//   - Work of one term has returned before Lead returns.
//
// Lead owns every goroutine. Each link is owned by its own, and so is each
// edge; what they share is guarded by a mutex or replaced as a whole.
package reconcile
