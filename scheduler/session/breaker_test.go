package session

import (
	"errors"
	"testing"
)

func TestBreaker(t *testing.T) {
	b := newBreaker()
	if !b.open.Load() || b.why() == "" {
		t.Fatalf("a new breaker is open %t because of %q, want open with a reason", b.open.Load(), b.why())
	}
	if !b.close() || b.why() != "" {
		t.Fatalf("after the first answer it is not closed: %q", b.why())
	}
	lost := errors.New("connection lost")
	for i := range tripAfter - 1 {
		if b.fail(lost) || b.why() != "" {
			t.Fatalf("failure %d opened it, want %d in a row", i+1, tripAfter)
		}
	}
	b.succeed() // and it counts anew
	for i := range tripAfter {
		if opened := b.fail(lost); opened != (i == tripAfter-1) {
			t.Fatalf("failure %d opened it: %t", i+1, opened)
		}
	}
	if got := b.why(); got != lost.Error() {
		t.Errorf("reason = %q, want %q", got, lost)
	}
	if b.fail(errors.New("still lost")) {
		t.Error("it opened twice")
	}
	if got := b.why(); got != "still lost" {
		t.Errorf("reason = %q, want the latest", got)
	}
	if !b.close() || b.close() {
		t.Error("closing must be reported once")
	}
}
