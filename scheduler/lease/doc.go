// Package lease runs the request-path use cases: claim, renew, release,
// inspect.
//
// A [Service] runs on every scheduler. Writes need the leader and say
// [api.CodeNotLeader] elsewhere; reads are answered from the own replica.
// Nothing here waits for a node, an edge or the store.
//
// Invariants:
//
//   - A warm instance is proposed by at most one caller at a time, and whoever
//     proposed it gives it back on every path. That only saves collisions: what
//     keeps an instance from being leased twice is the revision in the claim.
//   - A claim whose outcome nobody knows is never followed by another one of the
//     same call.
//   - Nobody overtakes the waiting line of a template. An instance goes to its
//     head under the same lock under which callers join, leave and take, so no
//     wake-up is lost and an abandoned place holds up nobody.
//   - Lease IDs, idempotency keys and passwords are never logged.
//
// [Service.Run] is the only goroutine. It looks at the view after changes, at
// most once in 50 ms, and then serves the lines and wakes the watchers of
// leases that changed.
package lease
