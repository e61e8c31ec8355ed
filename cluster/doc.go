// Package cluster reports which members gossip sees and what they advertise.
//
// It wraps hashicorp/memberlist (SWIM) and decides nothing: who is listed here
// is a hint for the leader, which asks the member itself before it believes it.
//
// Invariants: callbacks of the library only copy and hand off; what other
// members say of themselves is checked before anybody sees it; the table is
// bounded. [Gossip.Run] owns every goroutine.
package cluster
