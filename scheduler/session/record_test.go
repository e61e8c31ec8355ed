package session

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

func TestRecordKeepsNoSecret(t *testing.T) {
	d := demo(1)
	s, err := encodeRecord(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{string(d.ID), d.Credentials.Username, d.Credentials.Password} {
		if strings.Contains(s, secret) {
			t.Errorf("record %s contains %q", s, secret)
		}
	}
	if d.ID != leaseID || d.Credentials == nil {
		t.Errorf("the caller's demo was changed: %+v", d)
	}
	got, err := decodeRecord(leaseID, s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored(d), got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

// TestRecordWithSecretsFromElsewhere: whoever can write to Valkey must not be
// able to hand a visitor other credentials or another lease.
func TestRecordWithSecretsFromElsewhere(t *testing.T) {
	got, err := decodeRecord(leaseID, `{"id":"theirs","credentials":{"username":"u","password":"p"},"revision":3}`)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != leaseID || got.Credentials != nil || got.Revision != 3 {
		t.Errorf("got %+v, want the ID that was asked for and no credentials", got)
	}
}

func TestRecordTTL(t *testing.T) {
	d := api.Demo{ExpiresAt: begin.Add(time.Hour)}
	for name, test := range map[string]struct{ now, want time.Duration }{
		"active": {0, time.Hour + time.Minute},
		"ended":  {2 * time.Hour, time.Minute},
	} {
		if got := recordTTL(d, time.Minute, begin.Add(test.now)); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

func revisions(batch []api.Demo) string {
	var all []uint64
	for _, d := range batch {
		all = append(all, d.Revision)
	}
	return fmt.Sprint(all)
}

func wantRevisions(t *testing.T, what string, batch []api.Demo, want ...uint64) {
	t.Helper()
	if got := revisions(batch); got != fmt.Sprint(want) {
		t.Errorf("%s: got %s, want %v", what, got, want)
	}
}

func TestQueueDropsTheOldest(t *testing.T) {
	q := newQueue(3)
	for r := range uint64(5) {
		if dropped := q.put(api.Demo{Revision: r + 1}); dropped != (r >= 3) {
			t.Errorf("put %d dropped one: %t", r+1, dropped)
		}
	}
	select {
	case <-q.ready:
	default:
		t.Error("nobody is told to look")
	}
	wantRevisions(t, "first batch", q.take(2), 3, 4)
	wantRevisions(t, "rest", q.take(2), 5)
	if got := q.take(2); len(got) != 0 || q.len() != 0 || q.demos != nil {
		t.Errorf("an empty queue gave %s and holds on to %d", revisions(got), cap(q.demos))
	}
}

func TestQueueGivesBack(t *testing.T) {
	q := newQueue(3)
	for r := range uint64(3) {
		q.put(api.Demo{Revision: r + 1})
	}
	batch := q.take(2)
	q.put(api.Demo{Revision: 4})
	if got := q.giveBack(batch); got != 1 {
		t.Errorf("dropped %d, want 1: there is room for one", got)
	}
	wantRevisions(t, "queue", q.take(9), 2, 3, 4)
	if got := q.giveBack(batch); got != 0 {
		t.Errorf("dropped %d of an empty queue, want 0", got)
	}
	wantRevisions(t, "queue", q.take(9), 1, 2)
	// A batch that was taken is its taker's: what comes later must not show in it.
	q.put(api.Demo{Revision: 7})
	wantRevisions(t, "batch", batch, 1, 2)
}

func FuzzDecodeRecord(f *testing.F) {
	good, err := encodeRecord(api.Demo{ID: leaseID, State: api.DemoActive, Revision: 1, ExpiresAt: begin})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, "", "{}", "null", "[]", `{"revision":-1}`, `{"expires_at":"never"}`, `{"credentials":{"password":"p"}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := decodeRecord(leaseID, s)
		if err != nil {
			if d != (api.Demo{}) {
				t.Errorf("decode of %q gave both %+v and %v", s, d, err)
			}
			return
		}
		if d.ID != leaseID || d.Credentials != nil {
			t.Errorf("decode of %q gave %+v", s, d)
		}
		again, err := encodeRecord(d)
		if err != nil {
			return // times that JSON cannot spell
		}
		if back, err := decodeRecord(leaseID, again); err != nil || !json.Valid([]byte(again)) || !back.ExpiresAt.Equal(d.ExpiresAt) || back.Revision != d.Revision {
			t.Errorf("%q became %q became %+v, %v", s, again, back, err)
		}
	})
}
