package state

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var seeds = []uint64{1, 2, 3, 4, 5}

// TestReplicasAgree replays a log into two replicas: one as it was decided,
// one through the encoding, in batches.
func TestReplicasAgree(t *testing.T) {
	for _, seed := range seeds {
		log, first := randomLog(t, seed, 2000)
		second := New()
		for batch := range slices.Chunk(log, 7) {
			var decoded []Envelope
			for _, e := range batch {
				part, err := Decode(pack(t, e.At, e.Command))
				if err != nil {
					t.Fatalf("Decode(%+v): %v", e, err)
				}
				decoded = append(decoded, part...)
			}
			second, _ = ApplyAll(second, decoded)
		}
		if !bytes.Equal(snapshot(t, first), snapshot(t, second)) {
			t.Errorf("seed %d: two replicas of one log differ", seed)
		}
		for _, v := range []*View{first, second} {
			if err := Check(v); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		if got, want := second.Revision(), uint64(len(log)); got != want {
			t.Errorf("seed %d: revision %d, want %d", seed, got, want)
		}
	}
}

// TestResultsAgree compares what callers are told: batches against single
// commands.
func TestResultsAgree(t *testing.T) {
	log, _ := randomLog(t, 11, 1000)
	_, batched := ApplyAll(New(), log)
	v := New()
	for i, e := range log {
		var single Result
		v, single = Apply(v, e.At, e.Command)
		if diff := cmp.Diff(batched[i], single); diff != "" {
			t.Fatalf("command %d, %+v (-batched +single):\n%s", i, e.Command, diff)
		}
	}
}

// TestSnapshotAtEveryPrefix stops after every command, restores, and carries on
// from the restored view.
func TestSnapshotAtEveryPrefix(t *testing.T) {
	log, _ := randomLog(t, 21, 400)
	v := New()
	for i, e := range log {
		b := snapshot(t, v)
		restored := restore(t, b)
		if !bytes.Equal(snapshot(t, restored), b) {
			t.Fatalf("before command %d: a restored view writes another snapshot", i)
		}
		if err := Check(restored); err != nil {
			t.Fatalf("before command %d: %v", i, err)
		}
		next, want := Apply(v, e.At, e.Command)
		_, got := Apply(restored, e.At, e.Command)
		if diff := cmp.Diff(got, want); diff != "" {
			t.Fatalf("command %d, %+v, after a restore (-got +want):\n%s", i, e.Command, diff)
		}
		v = restored
		v, _ = Apply(v, e.At, e.Command)
		if !bytes.Equal(snapshot(t, v), snapshot(t, next)) {
			t.Fatalf("command %d, %+v: the restored replica differs", i, e.Command)
		}
	}
}

// TestApplyIsPure checks that a view never changes once it is published, and
// that a refusal leaves no trace but revision and time.
func TestApplyIsPure(t *testing.T) {
	log, _ := randomLog(t, 31, 1000)
	v := New()
	for i, e := range log {
		before := snapshot(t, v)
		next, r := Apply(v, e.At, e.Command)
		if !bytes.Equal(before, snapshot(t, v)) {
			t.Fatalf("command %d, %+v: the old view has changed", i, e.Command)
		}
		if err := Check(v); err != nil {
			t.Fatalf("command %d, %+v: the old view is broken: %v", i, e.Command, err)
		}
		if r.Refusal != nil {
			undone := *next
			undone.revision, undone.time = v.revision, v.time
			if !bytes.Equal(before, snapshot(t, &undone)) {
				t.Fatalf("command %d, %+v: refused with %v, but it changed something", i, e.Command, r.Refusal)
			}
		}
		v = next
	}
}

func TestStateTimeNeverGoesBack(t *testing.T) {
	v, _ := Apply(New(), epoch.Add(time.Hour), Collect{Limit: 1})
	v, _ = Apply(v, epoch, Collect{Limit: 1})
	if got, want := v.Time(), epoch.Add(time.Hour); !got.Equal(want) {
		t.Errorf("Time() = %s, want %s", got, want)
	}
	local := time.FixedZone("local", 3600)
	v, _ = Apply(v, epoch.Add(2*time.Hour).In(local), Collect{Limit: 1})
	if got, want := v.Time(), epoch.Add(2*time.Hour); got != want { // identical values, not just equal instants
		t.Errorf("Time() = %#v, want %#v", got, want)
	}
}
