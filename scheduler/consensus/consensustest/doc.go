// Package consensustest runs whole Raft groups inside one test, on in-memory
// networks and disks, so that they also run in virtual time.
//
// Everything a cluster starts has ended when its test ends. The cluster itself
// is driven by one goroutine, that of the test.
package consensustest
