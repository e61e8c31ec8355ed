package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"

	"github.com/boss/demo-multiplexer/api"
)

const goodMeta = `{"r":"agent","h":"10.1.0.1:9000"}`

func fieldsOf(err error) []string {
	var e *api.Error
	if !errors.As(err, &e) {
		return nil
	}
	var fields []string
	for _, f := range e.Fields {
		fields = append(fields, f.Field)
	}
	return fields
}

func quietTable() *table { return newTable(slog.New(slog.DiscardHandler)) }

func names(t *table) []string {
	var names []string
	for _, m := range t.members() {
		names = append(names, m.Name)
	}
	return names
}

func TestGoneMembersStayListedForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := quietTable()
		table.seen("a", []byte(goodMeta))
		time.Sleep(time.Minute)
		table.gone("a")
		left := time.Now()
		time.Sleep(time.Minute)
		table.gone("a")
		want := []Member{{Name: "a", Meta: agentAt("10.1.0.1:9000"), Since: left}}
		time.Sleep(58 * time.Minute)
		if diff := cmp.Diff(want, table.members()); diff != "" {
			t.Errorf("within the hour (-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Minute)
		if got := table.members(); len(got) != 0 {
			t.Errorf("after the hour: got %+v, want nobody", got)
		}
		table.seen("a", []byte(goodMeta))
		want[0].Alive, want[0].Since = true, time.Now()
		if diff := cmp.Diff(want, table.members()); diff != "" {
			t.Errorf("back again (-want +got):\n%s", diff)
		}
	})
}

func TestTableIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := quietTable()
		for i := range maxMembers + 10 {
			table.seen(fmt.Sprintf("m%d", i), []byte(goodMeta))
		}
		if got := len(table.all); got != maxMembers {
			t.Fatalf("got %d members, want %d", got, maxMembers)
		}
		table.gone("m0")
		table.seen("late", []byte(goodMeta))
		if slices.Contains(names(table), "late") {
			t.Error("a newcomer took the place of a member that left just now")
		}
		table.seen("m1", []byte(`{"r":"agent","h":"10.1.0.2:9000"}`))
		if got, want := table.all["m1"].Meta.HTTP, "10.1.0.2:9000"; got != want {
			t.Errorf("m1 in the full table: got %s, want %s", got, want)
		}
		time.Sleep(goneKept + time.Second)
		table.seen("late", []byte(goodMeta))
		if got := names(table); slices.Contains(got, "m0") || !slices.Contains(got, "late") {
			t.Error("a newcomer did not take the place of a member that left an hour ago")
		}
	})
}

func TestTableNotifiesOfChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := quietTable()
		changed, stop := table.subscribe()
		steps := []struct {
			name string
			do   func()
			want bool
		}{
			{"seen", func() { table.seen("a", []byte(goodMeta)) }, true},
			{"seen again", func() { table.seen("a", []byte(goodMeta)) }, false},
			{"nonsense", func() { table.seen("a", []byte("x")) }, false},
			{"other meta", func() { table.seen("a", []byte(`{"r":"agent","h":"10.1.0.2:9000"}`)) }, true},
			{"stranger gone", func() { table.gone("b") }, false},
			{"gone", func() { table.gone("a") }, true},
			{"twice with nobody reading", func() { table.seen("b", []byte(goodMeta)); table.seen("c", []byte(goodMeta)) }, true},
			{"unsubscribed", func() { stop(); table.gone("b") }, false},
		}
		for _, s := range steps {
			s.do()
			got := false
			select {
			case <-changed:
				got = true
			default:
			}
			if got != s.want {
				t.Errorf("%s: got notified %v, want %v", s.name, got, s.want)
			}
		}
	})
}

// TestNonsenseIsWarnedOfSeldom counts the lines that a flood of nonsense makes.
func TestNonsenseIsWarnedOfSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		table := newTable(slog.New(slog.NewTextHandler(&lines, nil)))
		for range 5 * 60 * 10 {
			table.seen("a", []byte("nonsense"))
			time.Sleep(100 * time.Millisecond)
		}
		if got := strings.Count(lines.String(), "\n"); got < 1 || got > 5 {
			t.Errorf("got %d warnings in five minutes, want one a minute at most", got)
		}
	})
}

func TestDecodeMeta(t *testing.T) {
	scheduler := api.MemberMeta{Role: api.RoleScheduler, HTTP: "10.0.0.1:8080", Raft: "[fd00::1]:7000", Joined: true}
	tests := map[string]struct {
		meta string
		want api.MemberMeta // zero: refused
	}{
		"agent":                 {goodMeta, agentAt("10.1.0.1:9000")},
		"scheduler":             {`{"r":"scheduler","h":"10.0.0.1:8080","a":"[fd00::1]:7000","j":true}`, scheduler},
		"says more":             {`{"r":"agent","h":"10.1.0.1:9000","new":[1]}`, agentAt("10.1.0.1:9000")},
		"empty":                 {``, api.MemberMeta{}},
		"not JSON":              {"\xff\x00", api.MemberMeta{}},
		"null":                  {`null`, api.MemberMeta{}},
		"wrong type":            {`{"r":7}`, api.MemberMeta{}},
		"something after it":    {goodMeta + goodMeta, api.MemberMeta{}},
		"cut off":               {goodMeta[:len(goodMeta)-1], api.MemberMeta{}},
		"unknown role":          {`{"r":"king","h":"10.1.0.1:9000"}`, api.MemberMeta{}},
		"no role":               {`{"h":"10.1.0.1:9000"}`, api.MemberMeta{}},
		"no address":            {`{"r":"agent"}`, api.MemberMeta{}},
		"address by name":       {`{"r":"agent","h":"metadata.internal:80"}`, api.MemberMeta{}},
		"address with path":     {`{"r":"agent","h":"10.1.0.1:9000/x"}`, api.MemberMeta{}},
		"address anywhere":      {`{"r":"agent","h":"0.0.0.0:9000"}`, api.MemberMeta{}},
		"no port":               {`{"r":"agent","h":"10.1.0.1"}`, api.MemberMeta{}},
		"wrong Raft address":    {`{"r":"scheduler","h":"10.0.0.1:8080","a":"x"}`, api.MemberMeta{}},
		"longer than it may be": {`{"r":"agent","h":"10.1.0.1:9000","x":"` + strings.Repeat("x", memberlist.MetaMaxSize) + `"}`, api.MemberMeta{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := decodeMeta([]byte(test.meta))
			if refuse := test.want == (api.MemberMeta{}); (err != nil) != refuse || got != test.want {
				t.Errorf("decodeMeta(%q): got %+v, %v, want %+v", test.meta, got, err, test.want)
			}
		})
	}
}

func TestSetMetaRefusesOversize(t *testing.T) {
	g, err := New(Options{
		Name: "a", Listen: "127.0.0.1:0", Advertise: "127.0.0.1:0", Meta: agentAt("10.1.0.1:9000"),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	before := string(g.ownMeta())
	m := agentAt("10.1.0.2:9000")
	m.HostClass = api.HostClass(strings.Repeat("x", memberlist.MetaMaxSize))
	if err := g.SetMeta(m); err == nil {
		t.Error("got no error for what is too long")
	}
	if got := string(g.ownMeta()); got != before {
		t.Errorf("what it says: got %s, want still %s", got, before)
	}
}

// FuzzDecodeMeta checks that whatever is accepted can be used and said again.
func FuzzDecodeMeta(f *testing.F) {
	for _, seed := range []string{
		goodMeta, `{"r":"scheduler","h":"10.0.0.1:8080","a":"[fd00::1]:7000","j":true}`, ``, `null`, `{}`, `[]`,
		`{"r":"agent","h":"[fe80::1%eth0]:1"}`, `{"r":"king"}`, `{"r":"agent","h":"x"}`, "\xff", goodMeta + "x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			if m != (api.MemberMeta{}) {
				t.Errorf("decodeMeta(%q): got %+v with error %v, want nothing with an error", b, m, err)
			}
			return
		}
		again, err := encodeMeta(m)
		if err != nil {
			return // escaping can make it longer than what came
		}
		if got, err := decodeMeta(again); err != nil || got != m {
			t.Errorf("%q through %q: got %+v, %v, want %+v", b, again, got, err, m)
		}
	})
}
