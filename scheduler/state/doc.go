// Package state is the replicated state: commands, tables, apply, snapshot
// format.
//
// A [View] is one immutable version of it. [Apply] is a pure function from a
// view and a command to the next view and a result: no clock, no randomness,
// no environment, no goroutine, no map order. Every replica that applies the
// same log therefore holds the same view, and a view can be read, kept and
// written out by anyone for as long as they like.
//
// The package owns no goroutine.
package state
