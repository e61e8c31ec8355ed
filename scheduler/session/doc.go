// Package session keeps rate limits and session records in Valkey.
//
// Valkey may vanish at any time and nothing is lost: limits are then counted
// by each scheduler for itself, or requests are refused, as configured, and
// records are read from the replicated state instead.
//
// Invariants:
//
//   - A request never waits longer than one short timeout for Valkey, and a
//     Valkey that is down costs no request anything: only the owner goroutine
//     tries whether it is back.
//   - A client is never unlimited because Valkey is down.
//   - Neither addresses of clients nor lease IDs nor passwords are stored: keys
//     are hashes and credentials stay out of records.
//   - Memory is bounded: the queue of records and the table of clients drop
//     their oldest entries.
//
// Run owns the connection and the queue of records. It is the only goroutine.
package session
