// Package page holds the friendly pages that an edge shows instead of a demo:
// no demo lives here, this demo has ended, this demo does not answer.
//
// The pages are constant: nothing of a request appears in them, so a hostile
// host name or path has nowhere to go. They carry no script and load nothing.
// They contain no curly brackets either, because Caddy replaces placeholders
// in what it serves.
//
// The package owns no goroutine.
package page
