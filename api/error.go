package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Code classifies an error for callers. The list is closed and append-only.
type Code string

// The error codes.
const (
	CodeInvalid         Code = "invalid"         // the request is wrong; repeat it only corrected
	CodeUnauthenticated Code = "unauthenticated" // a token is missing or wrong
	CodeNotFound        Code = "not_found"       // the thing named does not exist
	CodeConflict        Code = "conflict"        // the thing is in another state than the request needs
	CodeExhausted       Code = "exhausted"       // no warm instance is left; retry later
	CodeLimited         Code = "limited"         // this client has used up its quota
	CodeNotLeader       Code = "not_leader"      // another scheduler leads
	CodeUnavailable     Code = "unavailable"     // nothing was done; retry later
	CodeUncertain       Code = "uncertain"       // nobody knows whether it was done; retry with the same Idempotency-Key
	CodeInternal        Code = "internal"        // a defect or an unclassified failure
)

// codeStatus is the one table from codes to HTTP statuses.
var codeStatus = map[Code]int{
	CodeInvalid:         http.StatusBadRequest,
	CodeUnauthenticated: http.StatusUnauthorized,
	CodeNotFound:        http.StatusNotFound,
	CodeConflict:        http.StatusConflict,
	CodeExhausted:       http.StatusServiceUnavailable,
	CodeLimited:         http.StatusTooManyRequests,
	CodeNotLeader:       http.StatusServiceUnavailable,
	CodeUnavailable:     http.StatusServiceUnavailable,
	CodeUncertain:       http.StatusGatewayTimeout,
	CodeInternal:        http.StatusInternalServerError,
}

// Status returns the HTTP status that goes with c.
func (c Code) Status() int {
	if s, ok := codeStatus[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Error is an error whose code and message are meant for the caller.
type Error struct {
	Code       Code
	Message    string        // one plain sentence that says what to do
	RetryAfter time.Duration // zero where waiting does not help
	Leader     string        // base URL of the leader, with CodeNotLeader, when known
	Fields     []FieldError  // with CodeInvalid
	Status     int           // HTTP status where it is finer than the code's own (405, 413, 415, 431); else zero
	Err        error         // what went wrong underneath; for logs only
}

// FieldError says what is wrong with one field of a request.
type FieldError struct {
	Field  string `json:"field"` // path, for example "pool.warm"
	Reason string `json:"reason"`
}

// Errorf returns an Error with a formatted message. A %w operand becomes Err.
func Errorf(code Code, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// HTTPStatus returns the status of the reply that carries e.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	return e.Code.Status()
}

// CodeOf returns the code of the first Error in err's chain, CodeInternal for
// any other error and the empty code for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// Problem is the body of an error reply: RFC 9457, media type
// application/problem+json, extended by code, request_id and fields.
type Problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail,omitempty"`
	Instance  string       `json:"instance,omitempty"` // path of the request
	Code      Code         `json:"code"`
	RequestID string       `json:"request_id,omitempty"`
	Fields    []FieldError `json:"fields,omitempty"`
}
