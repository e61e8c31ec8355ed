package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAgentClient(t *testing.T) {
	seen := Observed{Node: NodeInfo{ID: "n1", Capacity: 4, MemoryAvailable: 1 << 30}, Boot: "b/1", Revision: 8, Term: 2, Generation: 5,
		Instances: []ObservedInstance{{ID: "i-x", State: InstanceWarm, Port: 20001}}}
	desired := Desired{Term: 2, Generation: 5, Instances: []DesiredInstance{{ID: "i-x", Host: "d-x", State: InstanceLeased, Epoch: 1, ExpiresIn: Duration(time.Minute)}}}
	body, err := json.Marshal(desired)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	s := serve(t, replyJSON(http.StatusOK, seen))
	c, err := NewAgentClient(s.URL, "secret", s.Client())
	if err != nil {
		t.Fatalf("NewAgentClient: %v", err)
	}
	calls := map[string]func() (Observed, error){
		"desire":  func() (Observed, error) { return c.Desire(t.Context(), desired) },
		"observe": func() (Observed, error) { return c.Observe(t.Context(), "b/1 &", 7) },
	}
	want := map[string]request{
		"desire": {"PUT /v1/desired", string(body), http.Header{"Authorization": {"Bearer secret"}, "Content-Type": {"application/json"}}},
		"observe": {"GET /v1/observed?" + url.Values{"after": {"7"}, "boot": {"b/1 &"}}.Encode(), "",
			http.Header{"Authorization": {"Bearer secret"}}},
	}
	for name, call := range calls {
		got, err := call()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(seen, got); diff != "" {
			t.Errorf("%s: reply (-want +got):\n%s", name, diff)
		}
		requests := s.requests()
		if diff := cmp.Diff(want[name], requests[len(requests)-1]); diff != "" {
			t.Errorf("%s: request (-want +got):\n%s", name, diff)
		}
	}
}

func TestAgentClientCodes(t *testing.T) {
	for _, code := range []Code{CodeConflict, CodeUnavailable, CodeUnauthenticated} {
		s := serve(t, refuse(code))
		c, err := NewAgentClient(s.URL, "secret", s.Client())
		if err != nil {
			t.Fatalf("NewAgentClient: %v", err)
		}
		if _, err := c.Desire(t.Context(), Desired{}); CodeOf(err) != code {
			t.Errorf("Desire: got %v, want %s", err, code)
		}
		if _, err := c.Observe(t.Context(), "", 0); CodeOf(err) != code {
			t.Errorf("Observe: got %v, want %s", err, code)
		}
		if got := len(s.requests()); got != 2 {
			t.Errorf("%s: got %d requests, want 2: there is no other endpoint to try", code, got)
		}
	}
	c, err := NewAgentClient(nobody(t), "secret", nil)
	if err != nil {
		t.Fatalf("NewAgentClient: %v", err)
	}
	if _, err := c.Desire(t.Context(), Desired{}); CodeOf(err) != CodeUnavailable {
		t.Errorf("nobody there: got %v, want unavailable", err)
	}
	if _, err := NewAgentClient("10.0.0.1:9000", "", nil); CodeOf(err) != CodeInvalid {
		t.Errorf("no base URL: got %v, want invalid", err)
	}
}
