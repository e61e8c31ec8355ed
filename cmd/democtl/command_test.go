package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const token = "operators-token-for-tests"

// scheduler answers like one, with what a test gives it.
func scheduler(t *testing.T, answers map[string]any) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			answer = &api.Error{Code: api.CodeNotFound, Message: "there is nothing here"}
		}
		if e, failed := answer.(*api.Error); failed {
			w.Header().Set("Content-Type", "application/problem+json")
			if e.RetryAfter > 0 {
				w.Header().Set("Retry-After", "7")
			}
			w.WriteHeader(e.HTTPStatus())
			answer = api.Problem{Status: e.HTTPStatus(), Code: e.Code, Detail: e.Message}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Errorf("answer %s: %v", r.URL.Path, err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// democtl runs the program and returns its exit code and what it printed.
func democtl(t *testing.T, endpoint string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := map[string]string{"DEMOCTL_ENDPOINTS": endpoint}
	c := &command{in: strings.NewReader(""), out: &stdout, err: &stderr, lookupEnv: func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}}
	code = c.run(t.Context(), args)
	return code, stdout.String(), stderr.String()
}

func templateFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCommands(t *testing.T) {
	const goodTemplate = "name: shop\nimage: localhost/demo/shop:latest\nport: 8080\n"
	id := api.NewLeaseID()
	demo := api.Demo{
		ID: id, State: api.DemoActive, Template: "shop", URL: "http://d-x.demo.test", ExpiresAt: time.Now().Add(time.Hour),
		Credentials: &api.Credentials{Username: "admin", Password: "secret-of-the-shop"},
	}
	ended := demo
	ended.State, ended.Credentials = api.DemoReleased, nil
	led := api.ClusterStatus{Server: "s1", Leader: "s1", Servers: []api.ServerStatus{{ID: "s1", Voter: true, Leader: true, Alive: true}}}
	for _, c := range []struct {
		name    string
		answers map[string]any
		args    []string
		code    int
		want    []string // in what was printed, to either stream
	}{
		{"status", map[string]any{"GET /api/v1/cluster": led}, []string{"status"}, exitOK, []string{"s1", "leader", "alive"}},
		{"status without a leader", map[string]any{"GET /api/v1/cluster": api.ClusterStatus{Server: "s1"}}, []string{"status"}, exitFailed, []string{"no scheduler leads", "majority"}},
		{"token missing", map[string]any{"GET /api/v1/nodes": &api.Error{Code: api.CodeUnauthenticated, Message: "this needs a token"}}, []string{"node", "list"}, exitFailed, []string{"--token-file"}},
		{"nodes", map[string]any{"GET /api/v1/nodes": []api.NodeStatus{{ID: "a1", Status: api.NodeUp, Restores: true, Capacity: 64}}}, []string{"node", "list"}, exitOK, []string{"a1", "up", "yes", "64"}},
		{"acquire", map[string]any{"POST /api/v1/demo/acquire": demo}, []string{"acquire", "shop"}, exitOK, []string{string(id), demo.URL, "secret-of-the-shop"}},
		{"acquire as JSON", map[string]any{"POST /api/v1/demo/acquire": demo}, []string{"acquire", "--json"}, exitOK, []string{`"url": "http://d-x.demo.test"`}},
		{"pool empty", map[string]any{"POST /api/v1/demo/acquire": &api.Error{Code: api.CodeExhausted, Message: "all demos are in use", RetryAfter: time.Second}}, []string{"acquire"}, exitFailed, []string{"try again in 7s"}},
		{"extend", map[string]any{"POST /api/v1/demo/" + string(id) + "/extend": demo}, []string{"extend", string(id), "--ttl", "1h"}, exitOK, []string{"the demo ends in"}},
		{"release", map[string]any{"DELETE /api/v1/demo/" + string(id): ended}, []string{"release", string(id)}, exitOK, []string{"the demo is released"}},
		{"watch an ended demo", map[string]any{"GET /api/v1/demo/" + string(id): ended}, []string{"watch", string(id)}, exitOK, []string{"released"}},
		{"apply", map[string]any{"PUT /api/v1/templates/shop": api.TemplateStatus{Revision: 1}}, []string{"template", "apply", templateFile(t, goodTemplate)}, exitOK, []string{"template shop is revision 1"}},
		{"apply a wrong key", nil, []string{"template", "apply", templateFile(t, goodTemplate+"imgae: x\n")}, exitFailed, []string{"imgae", "[4:1]"}},
		{"apply a wrong value", nil, []string{"template", "apply", templateFile(t, strings.Replace(goodTemplate, "8080", "0", 1))}, exitFailed, []string{"port", "from 1 to 65535"}},
		{"apply no file", nil, []string{"template", "apply", "/nowhere.yaml"}, exitFailed, []string{"/nowhere.yaml", "name a file"}},
		{"no such command", nil, []string{"demo"}, exitUsage, []string{`no command "demo"`, "--help"}},
		{"no such list", nil, []string{"node", "show"}, exitUsage, []string{`no command "show"`}},
		{"no such flag", nil, []string{"status", "--jsno"}, exitUsage, []string{"--jsno", "--help"}},
		{"argument missing", nil, []string{"release"}, exitUsage, []string{"takes the id of a demo"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := democtl(t, scheduler(t, c.answers), c.args...)
			if code != c.code {
				t.Errorf("democtl %v: got exit code %d, want %d; it said:\n%s%s", c.args, code, c.code, out, errs)
			}
			for _, want := range c.want {
				if !strings.Contains(out+errs, want) {
					t.Errorf("democtl %v: got\n%s%s\nwant it to contain %q", c.args, out, errs, want)
				}
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	code, _, errs := democtl(t, s.URL, "node", "list")
	if code != exitFailed || !strings.Contains(errs, "check that demo-scheduler runs there") {
		t.Errorf("got exit code %d and %q, want %d and what to check", code, errs, exitFailed)
	}
}

// TestTokenIsSentAndNeverShown: the token goes to the scheduler only.
func TestTokenIsSentAndNeverShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		w.WriteHeader(http.StatusTeapot)
	}))
	defer s.Close()
	_, out, errs := democtl(t, s.URL, "--token-file", file, "lease", "list")
	if got != "Bearer "+token {
		t.Errorf("Authorization: got %q, want the token of the file", got)
	}
	if strings.Contains(out+errs, token) {
		t.Errorf("the token was printed: %s%s", out, errs)
	}
}
