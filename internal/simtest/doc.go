// Package simtest runs whole clusters in one test, in virtual time: real Raft,
// real leader loops, real request path and real agents, on memory instead of
// networks and containers, with crashes, partitions and restarts.
//
// A seed decides everything that is drawn: what the visitors do, how long
// containers take, what breaks and when. A run that fails prints it; SIM_SEED
// repeats it. Goroutines that are ready at the same moment still run in an
// order of their own, so a rare failure may need several tries.
//
// Invariants that every run checks: no instance has two live leases, no
// acknowledged lease is lost, no two visitors get one shop, all replicas are
// equal after healing, and nothing is left on the nodes that no record names.
package simtest
