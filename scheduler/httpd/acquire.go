package httpd

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

const (
	// maxBody bounds the body of every request but a template, in bytes.
	maxBody = 64 << 10
	// maxKey bounds an Idempotency-Key before anything looks at it, in bytes.
	maxKey = 8 << 10
)

func (s *Server) acquire(w http.ResponseWriter, r *http.Request) error {
	call, err := decodeAcquire(r)
	if err != nil {
		return err
	}
	if call.Wait > 0 {
		w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", ceilSeconds(call.Wait)))
	}
	demo, replayed, err := s.demos.Acquire(r.Context(), call)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/v1/demo/"+string(demo.ID))
	status := http.StatusCreated
	if replayed {
		status = http.StatusOK
	}
	return encodeDemo(w, status, demo, false)
}

// decodeAcquire reads the body and the headers of an acquire.
func decodeAcquire(r *http.Request) (api.AcquireCall, error) {
	var call api.AcquireCall
	if err := httpx.Decode(r, &call.AcquireRequest, maxBody); err != nil {
		return api.AcquireCall{}, err
	}
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) > 1 || len(keys) == 1 && len(keys[0]) > maxKey {
		return api.AcquireCall{}, api.Errorf(api.CodeInvalid, "send one Idempotency-Key of at most %d bytes", maxKey)
	}
	call.IdempotencyKey = r.Header.Get("Idempotency-Key")
	call.Wait, _ = parseWait(r.Header.Values("Prefer"))
	return call, nil
}

// counted takes an acquire from the client's quota. What another scheduler
// sent on was counted there, and its reply says what is left.
func (s *Server) counted(next httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if hopOf(r.Context()).by != "" {
			return next(w, r)
		}
		quota, err := s.limiter.Allow(r.Context(), s.proxies.Client(r))
		if err != nil {
			return err
		}
		setQuota(w.Header(), quota)
		if !quota.Allowed {
			s.metrics.limited.Inc()
			return limited(quota)
		}
		return next(w, r)
	}
}

// setQuota writes the fields of draft-ietf-httpapi-ratelimit-headers.
func setQuota(h http.Header, q api.Quota) {
	if len(q.Windows) == 0 {
		return // no limits are configured
	}
	policies, left := make([]string, len(q.Windows)), make([]string, len(q.Windows))
	for i, w := range q.Windows {
		policies[i] = fmt.Sprintf("%q;q=%d;w=%d", w.Name, w.Limit, ceilSeconds(w.Window))
		left[i] = fmt.Sprintf("%q;r=%d;t=%d", w.Name, w.Remaining, ceilSeconds(w.Reset))
	}
	h.Set("RateLimit-Policy", strings.Join(policies, ", "))
	h.Set("RateLimit", strings.Join(left, ", "))
}

// limited says when every window has room again.
func limited(q api.Quota) error {
	e := api.Errorf(api.CodeLimited, "this client has acquired as many demos as it may for now; Retry-After says when the next is possible")
	for _, w := range q.Windows {
		if w.Remaining <= 0 {
			e.RetryAfter = max(e.RetryAfter, w.Reset)
		}
	}
	return e
}

// ceilSeconds rounds up, so that nobody comes back too early.
func ceilSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
