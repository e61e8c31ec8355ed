package httpd

import "net/http"

// What browsers may send to and read from the public API. Authorization is
// missing on purpose: operators' tokens do not belong into web pages.
const (
	corsMethods = "GET, POST, DELETE"
	corsHeaders = "Content-Type, Idempotency-Key, Prefer, Last-Event-ID, X-Request-Id"
	corsExposed = "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, Location, Preference-Applied, Demo-Stale"
	corsMaxAge  = "600" // seconds that a browser remembers a preflight
)

// cors lets web pages of the configured origins call. There is no wildcard and
// there are no credentials: a demo's ID is all that its visitor needs.
func (s *Server) cors(next http.Handler) http.Handler {
	if len(s.origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin") // also where it is missing or foreign: caches must not mix the replies
		if origin := r.Header.Get("Origin"); s.origins[origin] {
			h.Set("Access-Control-Allow-Origin", origin)
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", corsMethods)
				h.Set("Access-Control-Allow-Headers", corsHeaders)
				h.Set("Access-Control-Max-Age", corsMaxAge)
				w.WriteHeader(http.StatusNoContent)
				return
			}
			h.Set("Access-Control-Expose-Headers", corsExposed)
		}
		next.ServeHTTP(w, r)
	})
}
