package api

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

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

// maxHost is the longest host name that DNS allows, in bytes.
const maxHost = 253

// ValidHost reports whether s is a lower-case host name of DNS labels, without
// port, wildcard or final dot. Nothing else may reach the configuration of an
// edge, where other characters can have a meaning.
func ValidHost(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !ValidName(label) {
			return false
		}
	}
	return len(s) <= maxHost
}

// Validate reports the first thing that keeps an edge from serving r.
func (r Route) Validate() error {
	if !ValidHost(r.Host) {
		return fmt.Errorf("route of instance %q: %q is not a host name", r.Instance, r.Host)
	}
	if !ValidName(string(r.Instance)) {
		return fmt.Errorf("route of %s: %q cannot name an instance", r.Host, r.Instance)
	}
	up, err := netip.ParseAddrPort(r.Upstream)
	if err != nil || up.Port() == 0 || up.Addr().Zone() != "" || up.Addr().IsUnspecified() || up.Addr().IsMulticast() {
		return fmt.Errorf("route of %s: upstream %q is not the address and port of a node", r.Host, r.Upstream)
	}
	return nil
}

// Usable returns the routes and ended host names that an edge can serve, both
// sorted and without repetition, and why it leaves the others out. A host name
// with two different routes is left out altogether: serving either could show
// a visitor somebody else's shop.
func (t RouteTable) Usable() (routes []Route, ended []string, skipped []error) {
	hosts, instances := map[string]Route{}, map[InstanceID]string{}
	ambiguous := map[string]bool{}
	for _, r := range t.Routes {
		if err := r.Validate(); err != nil {
			skipped = append(skipped, err)
			continue
		}
		if other, ok := hosts[r.Host]; ok {
			if other != r {
				ambiguous[r.Host] = true
			}
			continue
		}
		if host, ok := instances[r.Instance]; ok {
			skipped = append(skipped, fmt.Errorf("route of %s: instance %s already has host %s", r.Host, r.Instance, host))
			continue
		}
		hosts[r.Host], instances[r.Instance] = r, r.Host
	}
	for host := range ambiguous {
		delete(hosts, host)
		skipped = append(skipped, fmt.Errorf("host %s has more than one route", host))
	}
	for _, host := range t.Ended {
		if _, live := hosts[host]; !live && ValidHost(host) {
			ended = append(ended, host)
		}
	}
	slices.Sort(ended)
	slices.SortFunc(skipped, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	routes = slices.SortedFunc(maps.Values(hosts), func(a, b Route) int { return strings.Compare(a.Host, b.Host) })
	return routes, slices.Compact(ended), skipped
}
