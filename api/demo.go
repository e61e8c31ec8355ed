package api

import "time"

// InstanceState is where an instance is in its life.
type InstanceState string

// The instance states, in the order of a life.
const (
	InstancePending    InstanceState = "pending"    // wanted on a node, nothing exists yet
	InstancePrepared   InstanceState = "prepared"   // created and initialised, not restored: costs disk only
	InstanceRestoring  InstanceState = "restoring"  // being restored or booted
	InstanceWarm       InstanceState = "warm"       // serving, waiting for a visitor
	InstanceLeased     InstanceState = "leased"     // a visitor's
	InstanceHibernated InstanceState = "hibernated" // a visitor's, checkpointed while idle
	InstanceEnding     InstanceState = "ending"     // being removed
	InstanceFailed     InstanceState = "failed"     // did not become warm; being removed
)

// DemoState is what a visitor is told about a demo.
type DemoState string

// The demo states.
const (
	DemoActive   DemoState = "active"
	DemoReleased DemoState = "released" // ended by DELETE
	DemoExpired  DemoState = "expired"  // ended by time
	DemoLost     DemoState = "lost"     // its instance died and could not be replaced
)

// Ended reports whether s is final.
func (s DemoState) Ended() bool { return s != DemoActive }

// AcquireRequest is the body of POST /api/v1/demo/acquire. An empty body is
// allowed where the cluster has exactly one template.
type AcquireRequest struct {
	Template TemplateName `json:"template,omitempty"`
	TTL      Duration     `json:"ttl,omitempty"` // default: the template's
}

// AcquireCall is an AcquireRequest with what its headers said.
type AcquireCall struct {
	AcquireRequest
	// IdempotencyKey makes retries safe: the same key with the same request
	// gives the same demo. Empty: none.
	IdempotencyKey string
	// Wait is how long the caller is willing to wait in line for a warm
	// instance (Prefer: wait=N).
	Wait time.Duration
}

// ExtendRequest is the body of POST /api/v1/demo/{id}/extend.
type ExtendRequest struct {
	TTL Duration `json:"ttl,omitempty"` // from now on; default: the template's
}

// Demo is a visitor's lease together with its instance.
type Demo struct {
	ID          LeaseID      `json:"id"`
	State       DemoState    `json:"state"`
	Template    TemplateName `json:"template"`
	URL         string       `json:"url"`
	AdminURL    string       `json:"admin_url,omitempty"`
	Credentials *Credentials `json:"credentials,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	ExpiresAt   time.Time    `json:"expires_at"`
	// ExtendableUntil is the latest time that extensions can reach.
	ExtendableUntil time.Time `json:"extendable_until"`
	Epoch           uint64    `json:"epoch"`    // rises when the demo moves to another instance
	Revision        uint64    `json:"revision"` // rises with every change
}

// Credentials open the back office of one instance.
type Credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// String hides the password, so that printing never leaks it.
func (c Credentials) String() string { return c.Username + ":[hidden]" }

// Status is the data of an event of GET /api/v1/demo/{id}/status.
type Status struct {
	ID        LeaseID   `json:"id"`
	State     DemoState `json:"state"`
	ExpiresAt time.Time `json:"expires_at"`
	// RemainingSeconds is an integer with its unit in its name, against the
	// rule for durations, because browsers have no duration type.
	RemainingSeconds int64  `json:"remaining_seconds"`
	Epoch            uint64 `json:"epoch"`
}

// PoolStats is the reply of GET /api/v1/pool/stats.
type PoolStats struct {
	Templates []TemplateStats `json:"templates"`
	// AsOf is the state time of the replica that answered, and Stale says that
	// it knew no leader.
	AsOf  time.Time `json:"as_of"`
	Stale bool      `json:"stale,omitempty"`
}

// TemplateStats counts the instances of one template by state.
type TemplateStats struct {
	Template   TemplateName `json:"template"`
	Revision   uint64       `json:"revision"`
	WarmTarget int          `json:"warm_target"`
	Pending    int          `json:"pending"`
	Warm       int          `json:"warm"`
	Leased     int          `json:"leased"`
	Ending     int          `json:"ending"`
	Failed     int          `json:"failed"`
}

// Quota is how much of its rate limit a client has left, for the RateLimit and
// RateLimit-Policy fields (draft-ietf-httpapi-ratelimit-headers).
type Quota struct {
	Allowed bool
	Windows []QuotaWindow
}

// QuotaWindow is one window of a rate limit.
type QuotaWindow struct {
	Name      string // "hour" or "day"
	Limit     int64
	Remaining int64
	Window    time.Duration
	Reset     time.Duration // until the window starts anew
}
