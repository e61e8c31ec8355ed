package config

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
)

type options struct {
	Name string       `json:"name" help:"a name"`
	Wait api.Duration `json:"wait" help:"a time"`
	HTTP struct {
		Listen  string   `json:"listen" help:"an address"`
		Proxies []string `json:"trusted_proxies" help:"prefixes"`
		Verbose bool     `json:"verbose" help:"more"`
		Max     int      `json:"max" help:"a number"`
	} `json:"http"`
	Edges []struct {
		ID string `json:"id"`
	} `json:"edges"`
	invalid error
}

func (o *options) Validate() error { return o.invalid }

func parse(t *testing.T, o *options, file string, env map[string]string, args ...string) (bool, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", path}, args...)
	}
	return Parse(Program{Name: "prog", Args: args, Output: io.Discard, LookupEnv: func(k string) (string, bool) {
		v, ok := env[k]
		return v, ok
	}}, o)
}

func TestPrecedence(t *testing.T) {
	const file = "name: file\nwait: 3s\nhttp:\n  listen: file:1\n  max: 7\nedges:\n  - id: e1\n"
	o := options{Name: "default", Wait: api.Duration(time.Second)}
	o.HTTP.Proxies = []string{"default"}
	check, err := parse(t, &o, file,
		map[string]string{"DEMO_PROG_NAME": "env", "DEMO_PROG_HTTP_LISTEN": "env:1", "DEMO_PROG_HTTP_TRUSTED_PROXIES": "a, b"},
		"--name", "flag", "--http-verbose", "--check")
	if err != nil || !check {
		t.Fatalf("got check %v, error %v", check, err)
	}
	want := options{Name: "flag", Wait: api.Duration(3 * time.Second)}
	want.HTTP.Listen, want.HTTP.Proxies, want.HTTP.Verbose, want.HTTP.Max = "env:1", []string{"a", "b"}, true, 7
	want.Edges = []struct {
		ID string `json:"id"`
	}{{"e1"}}
	if diff := cmp.Diff(o, want, cmp.AllowUnexported(options{})); diff != "" {
		t.Errorf("options (-got +want):\n%s", diff)
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name, file string
		env        map[string]string
		args       []string
		want       []string
	}{
		{name: "unknown key", file: "name: x\nhtpp:\n  listen: y\n", want: []string{"htpp", "2"}},
		{name: "unknown nested key", file: "http:\n  lisen: y\n", want: []string{"lisen", "2"}},
		{name: "wrong type", file: "http:\n  max: many\n", want: []string{"2"}},
		{name: "wrong duration", file: "wait: soon\n", want: []string{"soon", "90s"}},
		{name: "not YAML", file: "{", want: []string{"config.yaml"}},
		{name: "unknown flag", args: []string{"--nosuch"}, want: []string{"nosuch"}},
		{name: "wrong flag", args: []string{"--wait", "soon"}, want: []string{"--wait", "soon"}},
		{name: "wrong environment", env: map[string]string{"DEMO_PROG_HTTP_MAX": "x"}, want: []string{"DEMO_PROG_HTTP_MAX", "whole number"}},
		{name: "argument", args: []string{"start"}, want: []string{"start"}},
		{name: "no file", args: []string{"--config", "/nonexistent"}, want: []string{"/nonexistent"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(t, &options{}, c.file, c.env, c.args...)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not contain %q", err, w)
				}
			}
		})
	}
}

func TestHelpAndValidation(t *testing.T) {
	if _, err := parse(t, &options{}, "", nil, "--help"); !errors.Is(err, ErrHelp) {
		t.Errorf("--help: got %v, want ErrHelp", err)
	}
	broken := errors.New("broken")
	if _, err := parse(t, &options{invalid: broken}, "", nil); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of Validate", err)
	}
}

func TestEmptyFileKeepsDefaults(t *testing.T) {
	o := options{Name: "default"}
	if _, err := parse(t, &o, "# nothing\n", nil); err != nil || o.Name != "default" {
		t.Errorf("got %q, %v; want the default", o.Name, err)
	}
}
