package httpd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

// event is one event, or a comment, and when it came.
type event struct {
	id, name string
	status   api.Status
	comment  bool
	at       time.Duration
}

// watch reads a status stream to its end.
func watch(t testing.TB, body io.Reader) []event {
	t.Helper()
	began := time.Now()
	var all []event
	var e event
	for lines := bufio.NewScanner(body); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.status); err != nil {
				t.Errorf("event data %q: %v", value, err)
			}
		case ":", "":
			if e.comment = strings.HasPrefix(lines.Text(), ":"); e.name != "" || e.comment {
				e.at = time.Since(began)
				all = append(all, e)
				e = event{}
			}
		}
	}
	return all
}

// names lists events as "name remaining".
func names(all []event) []string {
	var out []string
	for _, e := range all {
		if !e.comment {
			out = append(out, fmt.Sprintf("%s %d", e.name, e.status.RemainingSeconds))
		}
	}
	return out
}

func statusOf(d api.Demo) request {
	return request{method: "GET", path: "/api/v1/demo/" + string(d.ID) + "/status"}
}

// alone runs test on a scheduler that leads, in virtual time.
func alone(t *testing.T, test func(t *testing.T, g *group, x *node), change ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newGroup("s1")
		test(t, g, start(t, newNetwork(), g, "s1", change...))
	})
}

// expire ends a demo after a while.
func expire(g *group, d api.Demo, after time.Duration) {
	time.AfterFunc(after, func() {
		d.State, d.Revision = api.DemoExpired, d.Revision+1
		g.put(d)
	})
}

func TestStreamCountsDownToTheEnd(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		t.Run(fmt.Sprintf("quiet=%t", quiet), func(t *testing.T) {
			alone(t, func(t *testing.T, g *group, x *node) {
				x.demos.quiet.Store(quiet) // the end must not depend on a signal
				demo := g.lease(3500 * time.Millisecond)
				expire(g, demo, 3750*time.Millisecond)
				res := x.open(t, statusOf(demo))
				for k, v := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
					if res.Header.Get(k) != v {
						t.Errorf("got %s %q, want %q", k, res.Header.Get(k), v)
					}
				}
				all := watch(t, res.Body)
				if diff := cmp.Diff([]string{"state 4", "countdown 3", "countdown 2", "countdown 1", "ended 0"}, names(all)); diff != "" {
					t.Fatalf("events (-want +got):\n%s", diff)
				}
				last := all[4]
				if last.status.State != api.DemoExpired || last.id != "8-0" || last.at > 3900*time.Millisecond {
					t.Errorf("got the end %+v, want expired with id 8-0 within 0.15 s of it", last)
				}
				if all[1].id != "7-3" || all[1].at != 500*time.Millisecond || all[1].status.ID != demo.ID || all[1].status.Epoch != 1 {
					t.Errorf("got the first count %+v, want id 7-3 after 0.5 s", all[1])
				}
			})
		})
	}
}

func TestStreamTellsChanges(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		demo := g.lease(10 * time.Second)
		change := func(after time.Duration, f func(*api.Demo)) {
			time.AfterFunc(after, func() {
				g.update(func() {
					d := g.demos[demo.ID]
					f(&d)
					d.Revision++
					g.demos[d.ID] = d
				})
			})
		}
		change(1500*time.Millisecond, func(d *api.Demo) { d.ExpiresAt = d.ExpiresAt.Add(10 * time.Second) })
		change(1600*time.Millisecond, func(d *api.Demo) { d.Epoch++; d.ExpiresAt = d.ExpiresAt.Add(time.Second) })
		change(1700*time.Millisecond, func(d *api.Demo) { d.Template = "other" })
		change(1800*time.Millisecond, func(d *api.Demo) { d.State = api.DemoLost })
		all := watch(t, x.open(t, statusOf(demo)).Body)
		want := []string{"state 10", "countdown 9", "extended 19", "moved 20", "state 20", "ended 0"}
		if diff := cmp.Diff(want, names(all)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// TestStreamOverdue watches a demo that nobody ends for a while, and then a
// grace that a new leader gives it.
func TestStreamOverdue(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		x.demos.quiet.Store(true)
		demo := g.lease(time.Second)
		time.AfterFunc(60*time.Second, func() {
			demo.ExpiresAt, demo.Revision = time.Now().Add(2*time.Second), demo.Revision+1
			g.put(demo)
		})
		expire(g, api.Demo{ID: demo.ID, State: api.DemoExpired, Revision: 9}, 63*time.Second)
		all := watch(t, x.open(t, statusOf(demo)).Body)
		got := names(all)
		if len(got) < 3 || got[0] != "state 1" || got[1] != "extended 2" && got[1] != "extended 1" || got[len(got)-1] != "ended 0" {
			t.Errorf("got events %v, want state, extended and ended", got)
		}
		if n := x.demos.count("inspect"); n < 80 || n > 120 {
			t.Errorf("asked %d times in 63 s, want ten times a second at first, then once", n)
		}
	})
}

// TestStreamOutlivesTheReadTimeout stays open longer than anybody may take to
// send a request.
func TestStreamOutlivesTheReadTimeout(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		demo := g.lease(100 * time.Second)
		expire(g, demo, 100*time.Second)
		all := watch(t, x.open(t, statusOf(demo)).Body)
		beats := 0
		for _, e := range all {
			if e.comment {
				beats++
			}
		}
		if n := len(names(all)); n != 101 || beats != 6 {
			t.Errorf("got %d events and %d heartbeats, want 101 and 6", n, beats)
		}
	})
}

func TestStreamResumes(t *testing.T) {
	for _, c := range []struct {
		name, id string
		want     string
	}{
		{"same revision", "7-3", "countdown 1"},
		{"older revision", "6-3", "state 2"},
		{"garbage", "7", "state 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			alone(t, func(t *testing.T, g *group, x *node) {
				demo := g.lease(2 * time.Second)
				expire(g, demo, 2*time.Second)
				r := statusOf(demo)
				r.header = map[string]string{"Last-Event-ID": c.id}
				if got := names(watch(t, x.open(t, r).Body)); len(got) == 0 || got[0] != c.want {
					t.Errorf("got events %v, want the first to be %q", got, c.want)
				}
			})
		})
	}
}

func TestStreamOfEndedDemo(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		demo := g.lease(time.Hour)
		demo.State = api.DemoReleased
		g.put(demo)
		if got := names(watch(t, x.open(t, statusOf(demo)).Body)); len(got) != 1 || got[0] != "ended 0" {
			t.Errorf("got events %v, want ended only", got)
		}
		r := statusOf(demo)
		r.header = map[string]string{"Last-Event-ID": "7-0"}
		if got := x.do(t, r); got.status != http.StatusNoContent {
			t.Errorf("somebody who saw the end: got %d, want 204, so that browsers stop asking", got.status)
		}
		problem(t, x.do(t, statusOf(api.Demo{ID: api.NewLeaseID()})), 404, api.CodeNotFound)
		problem(t, x.do(t, statusOf(api.Demo{ID: "..%2f..%2fetc"})), 404, api.CodeNotFound)
	})
}

func TestStreamPlaces(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		demo := g.lease(2 * time.Second)
		expire(g, demo, 2*time.Second)
		res := x.open(t, statusOf(demo))
		if got := x.do(t, statusOf(demo)); got.header.Get("Retry-After") == "" {
			t.Errorf("got headers %v, want Retry-After", got.header)
		} else {
			problem(t, got, 503, api.CodeExhausted)
		}
		watch(t, res.Body)
		synctest.Wait()
		if got := x.do(t, statusOf(demo)); got.status != 200 {
			t.Errorf("after the first stream: got %d, want its place free", got.status)
		}
	}, func(o *Options) { o.MaxStreams = 1 })
}

// TestSlowWatcherIsDropped has a watcher that reads nothing.
func TestSlowWatcherIsDropped(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		demo := g.lease(time.Hour)
		x.open(t, statusOf(demo))
		time.Sleep(30 * time.Minute) // the client's buffer is full long before that
		synctest.Wait()
		if n := len(x.server.streams); n != 0 {
			t.Errorf("%d streams are open, want the slow one dropped", n)
		}
	})
}

func TestStreamsEndWhenDraining(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		demo := p.group.lease(time.Hour)
		p.s2.demos.lagging.Store(true) // the stream comes from the leader
		began := time.Now()
		for _, x := range []*node{p.s2, p.s1} {
			res := x.open(t, statusOf(demo))
			time.AfterFunc(5*time.Second, func() { go x.stop() })
			watch(t, res.Body)
		}
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("two streams ended after %s, want 10s", took)
		}
	})
}

// TestStreamThroughFollower watches where the demo is not known yet.
func TestStreamThroughFollower(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		demo := p.group.lease(40 * time.Second)
		expire(p.group, demo, 40*time.Second)
		p.s2.demos.lagging.Store(true)
		res := p.s2.open(t, statusOf(demo))
		if ct := res.Header.Get("Content-Type"); ct != "text/event-stream" {
			t.Errorf("got content type %q, want text/event-stream", ct)
		}
		all := watch(t, res.Body)
		if got := names(all); len(got) != 41 || got[40] != "ended 0" || all[1].at != time.Second {
			t.Errorf("got %d events %v, want a countdown from 40 to ended, each on time", len(got), got)
		}
		problem(t, p.s2.do(t, statusOf(api.Demo{ID: api.NewLeaseID()})), 404, api.CodeNotFound)
	})
}

func TestStreamSurvivesFailingLooks(t *testing.T) {
	alone(t, func(t *testing.T, g *group, x *node) {
		demo := g.lease(time.Second)
		expire(g, demo, time.Second)
		looks := 0
		x.demos.before = func(_ context.Context, op string) error {
			if looks++; looks > 1 && looks < 5 {
				return unavailable("no answer")
			}
			return nil
		}
		if got := names(watch(t, x.open(t, statusOf(demo)).Body)); len(got) != 2 || got[1] != "ended 0" {
			t.Errorf("got events %v, want state and ended", got)
		}
	})
}

// TestStreamOnRealConnection is the stream on a real listener, with a read
// timeout that is over long before the demo is.
func TestStreamOnRealConnection(t *testing.T) {
	g := newGroup("s1")
	x := start(t, newNetwork(), g, "s1")
	server := httptest.NewUnstartedServer(x.server)
	server.Config.ReadTimeout = 50 * time.Millisecond
	server.Start()
	defer server.Close()
	demo := g.lease(400 * time.Millisecond)
	expire(g, demo, 450*time.Millisecond)
	res, err := server.Client().Get(server.URL + statusOf(demo).path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if got := names(watch(t, res.Body)); len(got) != 2 || got[1] != "ended 0" {
		t.Errorf("got events %v, want state and ended", got)
	}
	server.Client().CloseIdleConnections()
}
