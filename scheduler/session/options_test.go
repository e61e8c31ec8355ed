package session

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOptionsThatAreRefused(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	for name, test := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no address":       {func(o *Options) { o.Addresses = nil }, "no address"},
		"two passwords":    {func(o *Options) { o.Password, o.PasswordFile = "p", missing }, "both a password and a password file"},
		"no password file": {func(o *Options) { o.PasswordFile = missing }, "read password"},
		"unknown policy":   {func(o *Options) { o.WhenDown = "hope" }, "local or refuse"},
		"no logger":        {func(o *Options) { o.Logger = nil }, "no logger"},
		"negative limit":   {func(o *Options) { o.Limits.PerDay = -1 }, "must not be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newStore(t, "127.0.0.1:1").options
			o.Registerer = nil
			test.change(&o)
			_, err := NewValkey(o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("NewValkey = %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestOptionsAreCompleted(t *testing.T) {
	o := newStore(t, "127.0.0.1:1", func(o *Options) { o.ProbeEvery = 0 }).options
	if o.WhenDown != PolicyLocal || o.MaxClients != defaultClients || o.QueueSize != defaultQueue || o.Kept != defaultKept || o.ProbeEvery != defaultProbe {
		t.Errorf("options = %+v, want the defaults", o)
	}
}

// TestPasswordFileIsReadAgain: a new password needs no restart.
func TestPasswordFileIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	o := Options{PasswordFile: file}
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := o.password(); got != want || err != nil {
			t.Errorf("password = %q, %v, want %q", got, err, want)
		}
	}
}
