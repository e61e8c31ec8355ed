package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFailover(t *testing.T) {
	tests := map[string]struct {
		first http.HandlerFunc // nil: nothing listens
		next  bool             // the next endpoint is asked
		code  Code             // of the first endpoint alone
	}{
		"connection refused": {nil, true, CodeUnavailable},
		"not leader":         {refuse(CodeNotLeader), true, CodeNotLeader},
		"unavailable":        {refuse(CodeUnavailable), true, CodeUnavailable},
		"uncertain":          {refuse(CodeUncertain), true, CodeUncertain},
		"connection lost":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true, CodeUnavailable},
		"lost within the reply": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"id":"x"`)
		}, true, CodeUnavailable},
		"invalid":         {refuse(CodeInvalid), false, CodeInvalid},
		"unauthenticated": {refuse(CodeUnauthenticated), false, CodeUnauthenticated},
		"not found":       {refuse(CodeNotFound), false, CodeNotFound},
		"conflict":        {refuse(CodeConflict), false, CodeConflict},
		"limited":         {refuse(CodeLimited), false, CodeLimited},
		"exhausted":       {refuse(CodeExhausted), false, CodeExhausted},
		"internal":        {refuse(CodeInternal), false, CodeInternal},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			endpoint := nobody(t)
			var first *fake
			if test.first != nil {
				first = serve(t, test.first)
				endpoint = first.URL
			}
			second := serve(t, replyJSON(http.StatusCreated, Demo{Epoch: 7}))
			got, err := clientOf(t, endpoint, second.URL).Acquire(t.Context(), AcquireCall{})
			if asked := len(second.requests()) > 0; asked != test.next {
				t.Errorf("got the next endpoint asked %v, want %v", asked, test.next)
			}
			if test.next && (err != nil || got.Epoch != 7) {
				t.Errorf("got %+v, %v, want the reply of the next endpoint", got, err)
			}
			if test.next && first != nil {
				if a, b := first.requests(), second.requests(); len(a) != 1 || cmp.Diff(a, b) != "" {
					t.Errorf("the endpoints got %+v and %+v, want the same once, key included", a, b)
				}
			}
			if !test.next && CodeOf(err) != test.code {
				t.Errorf("got %v (%s), want %s", err, CodeOf(err), test.code)
			}
			_, err = clientOf(t, endpoint).Acquire(t.Context(), AcquireCall{})
			if got := CodeOf(err); got != test.code {
				t.Errorf("the endpoint alone: got %v (%s), want %s", err, got, test.code)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	fields := []FieldError{{Field: "ttl", Reason: "too long"}}
	tests := map[string]struct {
		problem Problem
		status  int
		after   string // Retry-After
		want    Error
	}{
		"fields": {Problem{Code: CodeInvalid, Detail: "wrong", Fields: fields, RequestID: "r1"}, 422, "",
			Error{Code: CodeInvalid, Message: "wrong", Fields: fields, Status: 422}},
		"retry after": {Problem{Code: CodeExhausted, Detail: "none left"}, 503, "7",
			Error{Code: CodeExhausted, Message: "none left", Status: 503, RetryAfter: 7 * time.Second}},
		"retry after a date": {Problem{Code: CodeExhausted, Detail: "none left"}, 503, "Fri, 02 Jan 2026 03:04:05 GMT",
			Error{Code: CodeExhausted, Message: "none left", Status: 503}},
		"retry before": {Problem{Code: CodeLimited, Detail: "slower"}, 429, "-3",
			Error{Code: CodeLimited, Message: "slower", Status: 429}},
		"retry after ages": {Problem{Code: CodeLimited, Detail: "slower"}, 429, "9223372036854775807",
			Error{Code: CodeLimited, Message: "slower", Status: 429, RetryAfter: maxRetryAfter}},
		"internal": {Problem{Code: CodeInternal, Detail: "something failed", RequestID: "r2"}, 500, "",
			Error{Code: CodeInternal, Message: "something failed (request id r2)", Status: 500}},
		"title only": {Problem{Code: CodeNotFound, Title: "Not Found"}, 404, "",
			Error{Code: CodeNotFound, Message: "Not Found", Status: 404}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if test.after != "" {
					w.Header().Set("Retry-After", test.after)
				}
				replyJSON(test.status, test.problem)(w, r)
			})
			_, err := clientOf(t, s.URL).PoolStats(t.Context())
			var got *Error
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if diff := cmp.Diff(test.want, *got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostileReplies(t *testing.T) {
	endless := func(status int, head, piece string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			_, err := io.WriteString(w, head)
			for chunk := strings.Repeat(piece, 1<<15); err == nil && r.Context().Err() == nil; {
				_, err = io.WriteString(w, chunk)
			}
		}
	}
	text := func(status int, s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, s)
		}
	}
	tests := map[string]struct {
		reply   http.HandlerFunc
		message string // part of it
	}{
		"garbage":           {text(200, "\x00\xffhello"), "cannot be read"},
		"empty":             {text(200, ""), "cannot be read"},
		"cut off":           {text(200, `{"templates":[{"tem`), "cannot be read"},
		"wrong type":        {text(200, `{"templates":7}`), "cannot be read"},
		"html with 502":     {text(502, "<html>Bad Gateway</html>"), "502 Bad Gateway"},
		"code-less problem": {text(500, `{"detail":"x"}`), "no problem document"},
		"endless reply":     {endless(200, `{"templates":[`, `                `), "too long"},
		"endless problem":   {endless(500, `{"code":"`, `xxxxxxxxxxxxxxxx`), "no problem document"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "307 Temporary Redirect"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.reply)
			_, err := clientOf(t, s.URL).PoolStats(t.Context())
			if CodeOf(err) != CodeInternal || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v (%s), want internal with %q", err, CodeOf(err), test.message)
			}
			if got := len(s.requests()); got != 1 {
				t.Errorf("got %d requests, want 1", got)
			}
		})
	}
}

// TestGivenHTTPClientFollowsNoRedirect uses a client that would follow, and
// thereby take the token elsewhere.
func TestGivenHTTPClientFollowsNoRedirect(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	hc := s.Client()
	c, err := NewClient(ClientOptions{Endpoints: []string{s.URL}, HTTPClient: hc})
	if err != nil {
		t.Fatalf("NewClient: %v", err)
	}
	if _, err := c.PoolStats(t.Context()); CodeOf(err) != CodeInternal {
		t.Errorf("got %v, want internal", err)
	}
	if got := s.requests(); len(got) != 1 {
		t.Errorf("got %+v, want one request", got)
	}
	if hc.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

// TestContextEnds ends the context while the first endpoint keeps the caller
// waiting.
func TestContextEnds(t *testing.T) {
	asked := make(chan struct{})
	first := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	second := serve(t, replyJSON(http.StatusOK, PoolStats{}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err := clientOf(t, first.URL, second.URL).PoolStats(ctx)
	if CodeOf(err) != CodeUnavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v (%s), want unavailable because of the context", err, CodeOf(err))
	}
	if got := len(second.requests()); got != 0 {
		t.Errorf("the next endpoint got %d requests, want none", got)
	}
}
