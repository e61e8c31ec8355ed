package httpx

import (
	"net/http"
	"strings"
	"testing"

	"github.com/boss/demo-multiplexer/api"
)

type body struct {
	Name  string       `json:"name"`
	Count int          `json:"count"`
	For   api.Duration `json:"for"`
	On    bool         `json:"on"`
	List  []string     `json:"list"`
	In    struct {
		Deep int `json:"deep"`
	} `json:"in"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, body, media string
		status            int
		detail            string // part of it
	}{
		{name: "empty", status: 204},
		{name: "all", body: `{"name":"x","count":1,"for":"1s"}`, media: "application/json; charset=utf-8", status: 204},
		{name: "no media type", body: `{}`, status: 204},
		{name: "malformed", body: `{"name":`, status: 400, detail: "ends too early"},
		{name: "syntax", body: `{name}`, status: 400, detail: "at byte 2"},
		{name: "unknown field", body: `{"nmae":"x"}`, status: 400, detail: "nmae is not known"},
		{name: "trailing", body: `{} x`, status: 400, detail: "nothing after it"},
		{name: "number for a string", body: `{"name":1}`, status: 400, detail: "name must be a string, not number"},
		{name: "number for a duration", body: `{"for":1}`, status: 400, detail: "for must be a string, not number"},
		{name: "word for a duration", body: `{"for":"soon"}`, status: 400, detail: "write it like 90s"},
		{name: "fraction", body: `{"count":1.5}`, status: 400, detail: "count must be a number in range"},
		{name: "string for a switch", body: `{"on":"yes"}`, status: 400, detail: "on must be true or false"},
		{name: "object for a list", body: `{"list":{}}`, status: 400, detail: "list must be an array"},
		{name: "deep", body: `{"in":{"deep":"x"}}`, status: 400, detail: "in.deep must be a number"},
		{name: "list at the top", body: `[]`, status: 400, detail: "body must be an object, not array"},
		{name: "other media type", body: `{}`, media: "text/plain", status: 415, detail: "application/json"},
		{name: "broken media type", body: `{}`, media: ";;", status: 415, detail: "application/json"},
		{name: "large", body: `{"name":"` + strings.Repeat("x", 100) + `"}`, status: 413, detail: "larger than 100 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newAdapter()
			h := router(a, func(w http.ResponseWriter, r *http.Request) error {
				var b body
				if err := Decode(r, &b, 100); err != nil {
					return err
				}
				w.WriteHeader(http.StatusNoContent)
				return nil
			})
			w, p := ask(t, h, "POST", "/thing/1", c.body, "Content-Type", c.media)
			if w.Code != c.status || !strings.Contains(p.Detail, c.detail) || strings.Contains(p.Detail, "api.") {
				t.Errorf("got %d %q, want %d and %q", w.Code, p.Detail, c.status, c.detail)
			}
			if c.status >= 400 && p.Code != api.CodeInvalid {
				t.Errorf("got code %q, want invalid", p.Code)
			}
		})
	}
}
