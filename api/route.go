package api

// RouteTable is everything that an edge should serve. Term and Generation
// order the pushes of leaders, so that an old one cannot undo a newer one.
type RouteTable struct {
	Term       uint64
	Generation uint64
	Routes     []Route  // sorted by host
	Ended      []string // host names of demos that ended recently, sorted
}

// Route sends the visitors of one host name to one instance.
type Route struct {
	Host     string
	Instance InstanceID
	Upstream string // address and port on the node
}
