// Package httpx adapts handlers that return errors, decodes and encodes JSON,
// and tags requests.
//
// One place turns an error into status, problem body (RFC 9457), log line and
// metric. What is not an [api.Error] is internal: the caller gets a request ID,
// the log gets the detail.
package httpx
