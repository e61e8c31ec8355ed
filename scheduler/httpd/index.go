package httpd

import "net/http"

// endpoints is what GET / answers, for people who meet the API for the first
// time.
const endpoints = `demo-multiplexer: a running demo of your own in one request

  curl -X POST -H 'Content-Type: application/json' -d '{"template":"NAME"}' THIS/api/v1/demo/acquire

Demos
  POST   /api/v1/demo/acquire       lease a demo; headers Idempotency-Key and Prefer: wait=SECONDS
  GET    /api/v1/demo/{id}          what became of it
  POST   /api/v1/demo/{id}/extend   keep it longer
  DELETE /api/v1/demo/{id}          give it back
  GET    /api/v1/demo/{id}/status   countdown and changes, as server-sent events
  GET    /api/v1/pool/stats         how many demos are ready, by template

Operators (Authorization: Bearer ADMIN_TOKEN)
  GET    /api/v1/cluster            schedulers, edges and store
  GET    /api/v1/nodes              hosts that run demos
  GET    /api/v1/leases             demos that are leased
  GET    /api/v1/instances          containers
  GET    /api/v1/templates          what can be leased
  GET    /api/v1/templates/{name}   one template
  PUT    /api/v1/templates/{name}   make or change one

Operation
  GET    /health                    ready, and if not, why
  GET    /health/live               the process answers
  GET    /health/ready              the same as /health
  GET    /metrics                   for Prometheus

Errors are problem details (RFC 9457) with a code and a request id.
`

func index(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	// A caller who left is the only way that this fails.
	_, _ = w.Write([]byte(endpoints))
	return nil
}
