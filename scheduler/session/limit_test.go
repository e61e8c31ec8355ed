package session

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

func newTestLocal(perHour, perDay int64, maxClients int) *local {
	return newLocal(Limits{PerHour: perHour, PerDay: perDay}.windows(), maxClients)
}

func hourWindow(limit, remaining int64, reset time.Duration) api.QuotaWindow {
	return api.QuotaWindow{Name: "hour", Limit: limit, Remaining: remaining, Window: time.Hour, Reset: reset}
}

func dayWindow(limit, remaining int64, reset time.Duration) api.QuotaWindow {
	return api.QuotaWindow{Name: "day", Limit: limit, Remaining: remaining, Window: 24 * time.Hour, Reset: reset}
}

func TestLocalCountsInEveryWindowOrInNone(t *testing.T) {
	l := newTestLocal(2, 3, 10)
	key := keyOf(nil, visitor)
	steps := []struct {
		name string
		at   time.Duration // since the beginning
		want api.Quota
	}{
		{"first", 0, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(2, 1, time.Hour), dayWindow(3, 2, 24*time.Hour)}}},
		{"second", 10 * time.Minute, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(2, 0, 50*time.Minute), dayWindow(3, 1, 24*time.Hour-10*time.Minute)}}},
		{"over the hour's", 20 * time.Minute, api.Quota{Windows: []api.QuotaWindow{hourWindow(2, 0, 40*time.Minute), dayWindow(3, 1, 24*time.Hour-20*time.Minute)}}},
		{"the hour is over", time.Hour, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(2, 1, time.Hour), dayWindow(3, 0, 23*time.Hour)}}},
		{"over the day's", 90 * time.Minute, api.Quota{Windows: []api.QuotaWindow{hourWindow(2, 1, 30*time.Minute), dayWindow(3, 0, 22*time.Hour+30*time.Minute)}}},
		{"refused in a new hour", 3 * time.Hour, api.Quota{Windows: []api.QuotaWindow{hourWindow(2, 2, time.Hour), dayWindow(3, 0, 21*time.Hour)}}},
		{"the day is over", 24 * time.Hour, api.Quota{Allowed: true, Windows: []api.QuotaWindow{hourWindow(2, 1, time.Hour), dayWindow(3, 2, 24*time.Hour)}}},
	}
	for _, s := range steps {
		got := l.allow(key, begin.Add(s.at))
		if diff := cmp.Diff(s.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

// TestLocalNeverAllowsTooMuch makes random requests of few clients and checks
// each answer against a count of its own.
func TestLocalNeverAllowsTooMuch(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const perHour, perDay = 4, 9
	l := newTestLocal(perHour, perDay, 10)
	type window struct {
		start time.Time
		n     int
	}
	counted := map[clientKey]*[2]window{}
	now := begin
	for i := range 20_000 {
		now = now.Add(time.Duration(rng.Int64N(int64(20 * time.Minute))))
		key := keyOf(nil, fmt.Sprint(rng.IntN(5)))
		c := counted[key]
		if c == nil {
			c = &[2]window{}
			counted[key] = c
		}
		want := true
		for w, length := range []time.Duration{time.Hour, 24 * time.Hour} {
			if now.Sub(c[w].start) >= length {
				c[w] = window{start: now}
			}
			want = want && c[w].n < []int{perHour, perDay}[w]
		}
		if want {
			c[0].n++
			c[1].n++
		}
		if got := l.allow(key, now).Allowed; got != want {
			t.Fatalf("request %d at %s: allowed %t, want %t with %+v", i, now, got, want, *c)
		}
	}
}

func TestLocalForgetsTheLongestIdle(t *testing.T) {
	l := newTestLocal(1, 0, 2)
	key := func(name string) clientKey { return keyOf(nil, name) }
	for _, step := range []struct {
		client string
		want   bool
	}{
		{"a", true}, {"b", true}, {"a", false}, // a is the one that was active last
		{"c", true}, {"a", false}, // b went, a stayed
		{"b", true}, // is new again
	} {
		if got := l.allow(key(step.client), begin).Allowed; got != step.want {
			t.Errorf("client %s: allowed %t, want %t", step.client, got, step.want)
		}
		if len(l.clients) > 2 || len(l.clients) != l.idle.Len() {
			t.Fatalf("%d clients and %d in line, want 2 at most", len(l.clients), l.idle.Len())
		}
	}
}

func TestWindowsThatAreOff(t *testing.T) {
	for name, test := range map[string]struct {
		limits Limits
		want   []string
	}{
		"none":     {Limits{}, nil},
		"hour":     {Limits{PerHour: 1}, []string{"hour"}},
		"day":      {Limits{PerDay: 1}, []string{"day"}},
		"both":     {Limits{PerHour: 1, PerDay: 1}, []string{"hour", "day"}},
		"negative": {Limits{PerHour: -1}, nil},
	} {
		var got []string
		for _, w := range test.limits.windows() {
			got = append(got, w.name)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if err := (Limits{PerHour: -1}).validate(); err == nil {
		t.Error("a negative limit is valid, want an error")
	}
}
