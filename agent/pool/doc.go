// Package pool alone owns the local instances: it compares what the leader
// desires with what exists, plans, and executes.
//
// One goroutine, [Pool.Run], owns every decision and all state below it.
// Workers only do: they run one action against the runtime and hand a closure
// back to the owner. [Plan] is a pure function, so what happens next can be
// tested without a container.
//
// Invariants:
//
//   - A Desired of an older term or generation is refused, also after a restart.
//   - An instance becomes warm only through a start that proved itself, and
//     what a restart needs to adopt it is on disk before anybody hears of it.
//   - An instance that was leased never becomes warm again.
//   - A lease ends on this process's monotonic clock, even when cut off.
//   - A failed instance is reported and never retried here: the leader decides.
//   - Containers that nobody named are kept until a leader has spoken.
package pool
