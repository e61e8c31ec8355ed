package state

import "github.com/boss/demo-multiplexer/api"

// Counts says how many instances are in each state.
type Counts struct {
	Pending, Warm, Leased, Ending, Failed int
}

// Total counts the instances in all states.
func (c Counts) Total() int { return c.Pending + c.Warm + c.Leased + c.Ending + c.Failed }

// of points at the counter of a state, nil for a state that no record has.
func (c *Counts) of(s api.InstanceState) *int {
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
		return nil
	}
}
