// Package scheduler builds, starts and stops one scheduler process.
//
// It holds no rules: it connects the replicated state, the leader's loops, the
// request path and the adapters, and gives each its lifetime.
package scheduler
