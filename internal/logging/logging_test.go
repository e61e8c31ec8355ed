package logging

import (
	"bytes"
	"strings"
	"testing"
)

func TestNew(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		want string // what the line about a warning contains; empty: refused
	}{
		{"text", Options{"info", "text"}, `level=WARN msg=careful`},
		{"json", Options{"debug", "json"}, `"msg":"careful"`},
		{"wrong level", Options{"loud", "text"}, ""},
		{"wrong format", Options{"info", "xml"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			logger, err := New(&out, c.o)
			if (err == nil) != (c.want != "") {
				t.Fatalf("New(%+v): got %v, want refusal %v", c.o, err, c.want == "")
			}
			if err != nil {
				return
			}
			logger.Warn("careful")
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("got %q, want it to contain %q", out.String(), c.want)
			}
		})
	}
}

func TestLevelIsKept(t *testing.T) {
	var out bytes.Buffer
	logger, err := New(&out, Options{Level: "error", Format: "text"})
	if err != nil {
		t.Fatal(err)
	}
	logger.Warn("not wanted")
	if out.Len() > 0 {
		t.Errorf("got %q below the level, want nothing", out.String())
	}
}
