// Package agent builds, starts and stops one agent process.
//
// An agent is a server: the leader tells it what to do and asks what it sees.
// It knows no scheduler. Gossip only says that it is there.
//
// The API listens at once, so that a port in use or a stuck preflight shows;
// it answers unavailable until the preflight has proved the host and the pool
// has seen the containers. Gossip is joined after that. Stopping leaves the
// containers running: a new process adopts them.
package agent
