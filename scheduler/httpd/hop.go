package httpd

import (
	"context"
	"net/http"

	"github.com/boss/demo-multiplexer/internal/httpx"
)

// The hop headers, set by schedulers that send a request on.
const (
	forwardedByHeader  = "X-Demo-Forwarded-By"
	clusterTokenHeader = "X-Demo-Cluster-Token"
)

type contextKey int

const hopKey contextKey = iota

// hop is where a request comes from.
type hop struct {
	// by is the scheduler that sent the request on and counted it. It is empty
	// for everybody who could not show the cluster's token.
	by string
	// last says that the request must not be sent on again.
	last bool
}

func hopOf(ctx context.Context) hop {
	h, _ := ctx.Value(hopKey).(hop)
	return h
}

// hops believes the hop headers of schedulers and takes them off every
// request, so that nothing behind it can mistake them.
//
// A wrong token earns no trust, but it does end the journey: two schedulers
// that were given different tokens, each taking the other for the leader,
// would otherwise send a request to and fro. An outsider who makes one up
// only harms the own request.
func (s *Server) hops(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, by := r.Header.Get(clusterTokenHeader), r.Header.Get(forwardedByHeader)
		r.Header.Del(clusterTokenHeader)
		r.Header.Del(forwardedByHeader)
		if token == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := hop{last: true}
		if httpx.SameSecret(token, s.token) {
			h.by = by
		} else {
			s.metrics.foreign.Inc()
			s.logger.Debug("a request shows a wrong cluster token", "request_id", httpx.RequestID(r.Context()))
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), hopKey, h)))
	})
}
