package podman

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/boss/demo-multiplexer/api"
)

func TestHookOutput(t *testing.T) {
	const proof = `"proofs":{"admin_password":"9f86"}`
	for _, c := range []struct {
		name, printed, wantErr string
		wantUser               string
	}{
		{"all of it", `{` + proof + `,"credentials":{"username":"admin","password":"secret"}}`, "", "admin"},
		{"white space around", "\n {" + proof + "}\n\n", "", ""},
		{"no credentials", `{` + proof + `}`, "", ""},
		{"more than is asked for", `{` + proof + `,"note":"hello"}`, "", ""},
		{"nothing", ``, "did not print its JSON document", ""},
		{"no JSON", `done!`, "did not print its JSON document", ""},
		{"half of it", `{"proofs":{"a":`, "did not print its JSON document", ""},
		{"another type", `[]`, "did not print its JSON document", ""},
		{"a proof that is no text", `{"proofs":{"a":1}}`, "did not print its JSON document", ""},
		{"text after it", `{` + proof + `} done`, "more than its JSON document", ""},
		{"two of them", `{` + proof + `}{}`, "more than its JSON document", ""},
		{"null", `null`, "proved nothing", ""},
		{"no proof", `{"credentials":{"username":"admin","password":"secret"}}`, "proved nothing", ""},
		{"an empty proof", `{"proofs":{"a":""}}`, "empty proof", ""},
		{"a proof without a name", `{"proofs":{"":"a"}}`, "empty proof", ""},
		{"an empty password", `{` + proof + `,"credentials":{"username":"admin","password":""}}`, "must be printable", ""},
		{"a password with a line break", `{` + proof + `,"credentials":{"username":"admin","password":"a\nb"}}`, "must be printable", ""},
		{"a password with terminal codes", `{` + proof + `,"credentials":{"username":"admin","password":"\u001b[2J"}}`, "must be printable", ""},
		{"an endless user name", `{` + proof + `,"credentials":{"username":"` + strings.Repeat("a", 300) + `","password":"a"}}`, "must be printable", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseHookOutput([]byte(c.printed))
			switch {
			case c.wantErr == "" && err != nil, c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)):
				t.Errorf("%s: got error %v, want %q", c.printed, err, c.wantErr)
			case c.wantUser != "" && (got == nil || got.Username != c.wantUser):
				t.Errorf("%s: got %v, want user %s", c.printed, got, c.wantUser)
			}
		})
	}
}

func FuzzHookOutput(f *testing.F) {
	f.Add([]byte(`{"proofs":{"admin_password":"9f86"},"credentials":{"username":"admin","password":"secret"}}`))
	f.Add([]byte(`{"proofs":{}}`))
	f.Add([]byte(`{"proofs":{"a":"b"}} x`))
	f.Add([]byte("\x00\xff{"))
	f.Fuzz(func(t *testing.T, printed []byte) {
		credentials, err := parseHookOutput(printed)
		if err != nil {
			return
		}
		var out struct {
			Proofs map[string]string `json:"proofs"`
		}
		if json.Unmarshal(printed, &out) != nil || len(out.Proofs) == 0 {
			t.Errorf("accepted %q, which proves nothing", printed)
		}
		if credentials != nil && (!validCredential(credentials.Username) || !validCredential(credentials.Password)) {
			t.Errorf("accepted the credentials %q", credentials)
		}
	})
}

func TestHookOutputIsBounded(t *testing.T) {
	var l limited
	if _, err := l.Write(bytes.Repeat([]byte("a"), maxHookOutput)); err != nil {
		t.Fatalf("as much as is allowed: %v", err)
	}
	if _, err := l.Write([]byte("a")); !errors.Is(err, errTooMuch) || l.Len() != maxHookOutput {
		t.Errorf("one byte more: got %v and %d bytes kept, want errTooMuch and %d", err, l.Len(), maxHookOutput)
	}
}

func TestHookInput(t *testing.T) {
	want := api.DesiredInstance{ID: "i-1", Host: "d-1.demo.localhost", URL: "http://d-1.demo.localhost:8088"}
	one, two := newHookInput(want), newHookInput(want)
	if len(one.Seed) != 32 || bytes.Equal(one.Seed, two.Seed) {
		t.Errorf("seeds: got %x and %x, want 32 bytes that differ", one.Seed, two.Seed)
	}
	encoded, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(encoded), `{"instance":"i-1","host":"d-1.demo.localhost","url":"http://d-1.demo.localhost:8088","seed":"`) {
		t.Errorf("the document that hooks read: got %s", encoded)
	}
}

func TestFirstLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"\n\n no such file \nsecond", "no such file "}, {strings.Repeat("x", 1000), strings.Repeat("x", 200)},
	} {
		if got := firstLine(c.in); got != c.want {
			t.Errorf("firstLine(%.20q): got %q, want %q", c.in, got, c.want)
		}
	}
}
