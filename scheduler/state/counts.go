package state

import "github.com/boss/demo-multiplexer/api"

// Counts says how many instances are in each state.
type Counts struct {
	Pending, Warm, Leased, Ending, Failed int
}

// Total counts the instances in all states.
func (c Counts) Total() int { return c.Pending + c.Warm + c.Leased + c.Ending + c.Failed }

// counter returns the counter of a state that [countable] allows.
func (c *Counts) counter(s api.InstanceState) *int {
	switch s {
	case api.InstancePending:
		return &c.Pending
	case api.InstanceWarm:
		return &c.Warm
	case api.InstanceLeased:
		return &c.Leased
	case api.InstanceEnding:
		return &c.Ending
	case api.InstanceFailed:
		return &c.Failed
	default:
		panic("state: no record of an instance may be " + string(s))
	}
}

// countable reports whether a record may have the state s.
func countable(s api.InstanceState) bool {
	switch s {
	case api.InstancePending, api.InstanceWarm, api.InstanceLeased, api.InstanceEnding, api.InstanceFailed:
		return true
	default:
		return false
	}
}
