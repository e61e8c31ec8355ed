// Package edge keeps the routes of every Caddy edge equal to the state.
//
// A [Caddy] drives one stock Caddy through its admin API. It owns the HTTP
// server named "demo" in that Caddy's configuration and nothing else: what
// other people configure there stays as it is.
//
// Invariants:
//
//   - One writer. Every write carries the ETag of what was read before it, so a
//     change made by anybody else in between is refused by Caddy, read again
//     and respected. A single route is removed by its @id only under such a
//     condition, because Caddy turns an @id into an array index before it locks.
//   - Fencing. The pushed table carries a marker with the leader's term and
//     generation. A table older than the marker is refused, so a leader that
//     does not know yet that it was replaced cannot undo its successor's work.
//   - Convergence. Each Sync reads the marker, and every few seconds the whole
//     server; whatever differs from the table is replaced.
//   - A host name that is no route gets a page, never somebody else's demo.
//
// The package owns no goroutine. Calls on one Caddy take turns.
package edge
