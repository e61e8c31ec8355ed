// Package api is the contract of demo-multiplexer: identifiers, request and
// reply types, error codes and typed clients.
//
// It holds no server code and imports no other package of this module, so that
// schedulers, agents and the command line meet here and nowhere else.
//
// Conventions on every wire: JSON, times in RFC 3339 with UTC offsets,
// durations as Go duration strings ("1m30s"), sizes in bytes unless a unit is
// part of the value ("512MiB"). Types that cross a wire never contain an
// interface value.
package api
