package httpd

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

func TestParseWait(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []string
		want   time.Duration
		ok     bool
	}{
		{"none", nil, 0, false},
		{"plain", []string{"wait=20"}, 20 * time.Second, true},
		{"zero", []string{"wait=0"}, 0, true},
		{"other case and spaces", []string{" Wait = 20 "}, 20 * time.Second, true},
		{"in a list", []string{"return=minimal, wait=20"}, 20 * time.Second, true},
		{"in a second field", []string{"return=minimal", "wait=20"}, 20 * time.Second, true},
		{"with a parameter", []string{"wait=20; strict"}, 20 * time.Second, true},
		{"quoted", []string{`wait="20"`}, 20 * time.Second, true},
		{"quoted with escapes", []string{`wait="\20"`}, 20 * time.Second, true},
		{"capped", []string{"wait=61"}, time.Minute, true},
		{"more digits than any number has", []string{"wait=" + strings.Repeat("9", 400)}, time.Minute, true},
		{"leading zeros", []string{"wait=00000000000000000000000000005"}, 5 * time.Second, true},
		{"the first counts", []string{"wait=5, wait=20"}, 5 * time.Second, true},
		{"inside a quoted string", []string{`foo="a, wait=20"`}, 0, false},
		{"after a quoted quote", []string{`foo="a\", wait=1", wait=20`}, 20 * time.Second, true},
		{"as a parameter of another", []string{"foo; wait=20"}, 0, false},
		{"without a value", []string{"wait"}, 0, false},
		{"negative", []string{"wait=-1"}, 0, false},
		{"with a unit", []string{"wait=5s"}, 0, false},
		{"fraction", []string{"wait=1.5"}, 0, false},
		{"never closed", []string{`wait="20`}, 0, false},
		{"other word", []string{"waiting=20"}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := parseWait(c.fields); got != c.want || ok != c.ok {
				t.Errorf("parseWait(%q): got %s, %t, want %s, %t", c.fields, got, ok, c.want, c.ok)
			}
		})
	}
}

func FuzzParseWait(f *testing.F) {
	for _, s := range []string{"wait=20", `foo="\"", wait="3"`, `";,=\`, "wait=;", ",,,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got, ok := parseWait([]string{field})
		if got < 0 || got > maxWait || got%time.Second != 0 || !ok && got != 0 {
			t.Errorf("parseWait(%q): got %s, %t, want whole seconds from 0 to 1m, and 0 where there is none", field, got, ok)
		}
		// A preference in front of it that names none changes nothing.
		if again, okAgain := parseWait([]string{`a="x,y"; b`, field}); again != got || okAgain != ok {
			t.Errorf("parseWait(%q): got %s, %t behind another preference, want %s, %t", field, again, okAgain, got, ok)
		}
	})
}

func FuzzDecodeAcquire(f *testing.F) {
	f.Add(`{"template":"shop","ttl":"5m"}`, "application/json", "key", "wait=3")
	f.Add(`{"template":null}`, "application/json; charset=utf-8", "", "")
	f.Add(``, "", "", "")
	f.Add(`{"ttl":1e400}`, "application/json", "k", `wait="`)
	f.Add(`{} []`, "text/plain", "k", "")
	f.Fuzz(func(t *testing.T, body, media, key, prefer string) {
		r := httptest.NewRequest("POST", acquirePath, strings.NewReader(body))
		r.Header["Content-Type"], r.Header["Idempotency-Key"], r.Header["Prefer"] = []string{media}, []string{key}, []string{prefer}
		call, err := decodeAcquire(r)
		if err != nil {
			if code := api.CodeOf(err); code != api.CodeInvalid {
				t.Errorf("decodeAcquire: got code %s (%v), want invalid", code, err)
			}
			return
		}
		if call.Wait < 0 || call.Wait > maxWait || call.IdempotencyKey != key {
			t.Errorf("decodeAcquire: got %+v, want the key %q and a wait of at most 1m", call, key)
		}
	})
}
