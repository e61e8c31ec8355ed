package httpx

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"

	"github.com/boss/demo-multiplexer/api"
)

// Decode reads the JSON body of a request, of at most limit bytes, into v. An
// empty body leaves v as it is. Unknown fields, trailing data and other media
// types are refused with [api.CodeInvalid].
func Decode(r *http.Request, v any, limit int64) error {
	body, err := ReadBody(r, limit)
	if err != nil || len(body) == 0 {
		return err
	}
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			e := api.Errorf(api.CodeInvalid, "the body must be JSON; send Content-Type: application/json")
			e.Status = http.StatusUnsupportedMediaType
			return e
		}
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return decodeError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return api.Errorf(api.CodeInvalid, "the body must hold one JSON object and nothing after it")
	}
	return nil
}

// ReadBody reads a body of at most limit bytes.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "the body could not be read: %w", err)
	}
	if int64(len(body)) > limit {
		e := api.Errorf(api.CodeInvalid, "the body is larger than %d bytes", limit)
		e.Status = http.StatusRequestEntityTooLarge
		return nil, e
	}
	return body, nil
}

func decodeError(err error) error {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return api.Errorf(api.CodeInvalid, "the body is not valid JSON, at byte %d: %w", syntax.Offset, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return api.Errorf(api.CodeInvalid, "the body is not valid JSON: it ends too early")
	case errors.As(err, &wrongType):
		field := wrongType.Field
		if field == "" {
			field = "body"
		}
		return api.InvalidFields("the body is not valid", []api.FieldError{{Field: field, Reason: fmt.Sprintf("must be %s, not %s", kindOf(wrongType.Type), wrongType.Value)}})
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return api.InvalidFields("the body is not valid", []api.FieldError{{Field: strings.Trim(field, `"`), Reason: "is not known here"}})
	}
	return api.Errorf(api.CodeInvalid, "the body is not valid: %w", err)
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// kindOf names a type in the words of JSON: callers do not know Go's.
func kindOf(t reflect.Type) string {
	switch k := t.Kind(); {
	case reflect.PointerTo(t).Implements(textType) || k == reflect.String:
		return "a string"
	case k == reflect.Bool:
		return "true or false"
	case k == reflect.Slice || k == reflect.Array:
		return "an array"
	case k == reflect.Struct || k == reflect.Map:
		return "an object"
	default:
		return "a number in range"
	}
}

// Encode writes v as JSON.
func Encode(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the reply: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A caller who left is the only way that this fails.
	_, _ = w.Write(append(data, '\n'))
	return nil
}
