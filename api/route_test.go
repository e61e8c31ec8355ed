package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRouteValidate(t *testing.T) {
	good := Route{Host: "d-a.demo.localhost", Instance: "i-a", Upstream: "10.0.0.1:20001"}
	tests := map[string]struct {
		change func(*Route)
		ok     bool
	}{
		"good":              {func(*Route) {}, true},
		"IPv6 upstream":     {func(r *Route) { r.Upstream = "[fd00::1]:20001" }, true},
		"no host":           {func(r *Route) { r.Host = "" }, false},
		"wildcard":          {func(r *Route) { r.Host = "*.demo.localhost" }, false},
		"placeholder":       {func(r *Route) { r.Host = "{http.request.host}" }, false},
		"upper case":        {func(r *Route) { r.Host = "D-A.demo.localhost" }, false},
		"host with port":    {func(r *Route) { r.Host = "a.demo.localhost:80" }, false},
		"long host":         {func(r *Route) { r.Host = strings.Repeat("a.", 127) + "a" }, false},
		"instance path":     {func(r *Route) { r.Instance = "a/../b" }, false},
		"port zero":         {func(r *Route) { r.Upstream = "10.0.0.1:0" }, false},
		"no port":           {func(r *Route) { r.Upstream = "10.0.0.1" }, false},
		"upstream by name":  {func(r *Route) { r.Upstream = "metadata:80" }, false},
		"upstream anywhere": {func(r *Route) { r.Upstream = "0.0.0.0:80" }, false},
		"upstream zone":     {func(r *Route) { r.Upstream = "[fe80::1%eth0]:80" }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := good
			test.change(&r)
			if err := r.Validate(); (err == nil) != test.ok {
				t.Errorf("%+v: got %v, want ok %v", r, err, test.ok)
			}
		})
	}
}

func TestRouteTableUsable(t *testing.T) {
	route := func(host, instance string, port string) Route {
		return Route{Host: host, Instance: InstanceID(instance), Upstream: "10.0.0.1:" + port}
	}
	table := RouteTable{
		Routes: []Route{
			route("d.x", "i-d", "4"), route("a.x", "i-a", "1"), route("a.x", "i-a", "1"),
			route("b.x", "i-b", "2"), route("b.x", "i-c", "3"),
			route("e.x", "i-a", "5"), route("f.x", "i-f", "0"),
		},
		Ended: []string{"z.x", "a.x", "y.x", "z.x", "*.x"},
	}
	routes, ended, skipped := table.Usable()
	if diff := cmp.Diff([]Route{route("a.x", "i-a", "1"), route("d.x", "i-d", "4")}, routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"y.x", "z.x"}, ended); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
	if len(skipped) != 3 {
		t.Errorf("skipped: got %v, want 3 reasons", skipped)
	}
}
