package page

import (
	_ "embed"
	"net/http"
	"strconv"
	"time"
)

// retryAfter is when a visitor whose demo does not answer should try again: a
// restore on another node takes less.
const retryAfter = 5 * time.Second

var (
	//go:embed unknown.html
	unknownHTML string
	//go:embed ended.html
	endedHTML string
	//go:embed down.html
	downHTML string
)

// A Page is a complete reply.
type Page struct {
	Status     int
	Body       string        // HTML in UTF-8
	RetryAfter time.Duration // zero: waiting does not help
}

// Unknown is for host names that no demo has.
func Unknown() Page { return Page{Status: http.StatusNotFound, Body: unknownHTML} }

// Ended is for host names of demos that ended recently.
func Ended() Page { return Page{Status: http.StatusGone, Body: endedHTML} }

// Down is for demos that do not answer: they start, move or are gone. The page
// loads itself again after RetryAfter.
func Down() Page {
	return Page{Status: http.StatusServiceUnavailable, Body: downHTML, RetryAfter: retryAfter}
}

// Header returns the fields that p is sent with.
func (p Page) Header() http.Header {
	h := http.Header{
		"Content-Type":            {"text/html; charset=utf-8"},
		"Cache-Control":           {"no-store"}, // the next visitor of this host may find a demo
		"Content-Security-Policy": {"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
		"Referrer-Policy":         {"no-referrer"},
		"X-Content-Type-Options":  {"nosniff"},
		"X-Robots-Tag":            {"noindex"},
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(p.RetryAfter.Seconds()), 10))
	}
	return h
}

// ServeHTTP implements http.Handler.
func (p Page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	for name, values := range p.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write([]byte(p.Body)) // a visitor who has gone needs no page
}
