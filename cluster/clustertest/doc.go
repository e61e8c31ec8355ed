// Package clustertest is a network in memory for tests of gossip. It works in
// virtual time: nothing in it blocks except on a clock or on a channel.
//
// Invariants: packets are lost, never waited for, where their reader is slow,
// gone or isolated; every connection ends with its transport. The package
// starts no goroutine.
package clustertest
