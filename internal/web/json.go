package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/podkey/podkey/internal/fault"
)

// ReadBody reads the whole body, at most limit bytes (and never more than the
// plane's [Plane.MaxBody]). A larger one is a fault of kind TooLarge with the given code.
func ReadBody(r *http.Request, limit int64, code string) ([]byte, error) {
	// The announced length is a guess at the room needed, nothing more.
	buf := bytes.NewBuffer(make([]byte, 0, bytes.MinRead+int(min(max(r.ContentLength, 0), limit))))
	_, err := buf.ReadFrom(io.LimitReader(r.Body, limit+1))
	body := buf.Bytes()
	if maxErr := (*http.MaxBytesError)(nil); errors.As(err, &maxErr) || int64(len(body)) > limit {
		return nil, fault.New(fault.TooLarge, code, "The request body is larger than the limit of %d bytes.", limit)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, code, "The request body could not be read.")
	}
	return body, nil
}

// DecodeJSON reads the body as one JSON value into v. Unknown members are
// ignored, as the services do; anything after the value is refused. code is
// the plane's code for a malformed request.
func DecodeJSON(r *http.Request, code string, v any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		mt, params, err := mime.ParseMediaType(ct)
		if err != nil || (mt != "application/json" && mt != "text/json") {
			return fault.New(fault.BadMediaType, code, "The content type must be application/json.")
		}
		if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
			return fault.New(fault.BadMediaType, code, "The charset must be utf-8.")
		}
	}
	body, err := ReadBody(r, MaxBody, code)
	if err != nil {
		return err
	}
	return UnmarshalJSON(body, code, v)
}

// UnmarshalJSON is [DecodeJSON] for a body that was read already. Messages
// name the place of a mistake, never the text around it, which may be secret.
func UnmarshalJSON(body []byte, code string, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return fault.BadRequest(code, "The request body must not be empty.")
	}
	err := json.Unmarshal(body, v)
	if err == nil {
		return nil
	}
	if syn := (*json.SyntaxError)(nil); errors.As(err, &syn) {
		return fault.BadRequest(code, "The request body is not valid JSON (at byte %d).", syn.Offset)
	}
	if typ := (*json.UnmarshalTypeError)(nil); errors.As(err, &typ) {
		return fault.BadRequest(code, "The request body has a %s where %s is expected, at '%s'.", typ.Value, typ.Type, typ.Field)
	}
	return fault.Wrap(err, fault.Invalid, code, "The request body is not valid JSON.")
}

// WriteJSON answers with a JSON body and its length. An encoding failure is
// returned before anything is written.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteJSONBytes(w, status, body)
}

// WriteJSONBytes is [WriteJSON] for a body that is encoded already. Errors of
// the connection are not errors of the handler: nobody is left to tell.
func WriteJSONBytes(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h["Content-Type"] = contentTypeJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body)
	return nil
}

// contentTypeJSON is shared by all answers: header values are never changed
// in place.
var contentTypeJSON = []string{"application/json; charset=utf-8"}

// Unset reports whether a decoded JSON value is what clients write for a
// property that they do not mean to set: null, false, an empty text, an empty
// list, or an object of nothing else.
func Unset(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, m := range v {
			if !Unset(m) {
				return false
			}
		}
		return true
	}
	return false
}
