// Package devproxy serves the routes of development mode inside the scheduler
// process: the same table, the same pages and the same refusals as a Caddy
// edge, without Caddy.
//
// A table is replaced as a whole, so a request sees the old or the new one,
// never a mixture. A table of an older term or generation is refused.
//
// The package owns no goroutine.
package devproxy
