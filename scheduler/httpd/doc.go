// Package httpd serves the API of a scheduler: demos for visitors, the status
// stream, pool figures, and what operators read and write.
//
// Any scheduler answers any request. What only the leader can do is tried here
// first and then sent on to it, once: a request that another scheduler sent on
// stops here. A request that may have been done already is repeated only where
// doing it twice is as good as doing it once; elsewhere the caller is told that
// nobody knows.
//
// Acquires are counted against the client's quota where they arrive, before
// anything else is looked at, so that bad requests use it up as well.
//
// Nothing here runs by itself: every goroutine belongs to a request and ends
// with it. Streams and waits end when the server drains.
package httpd
