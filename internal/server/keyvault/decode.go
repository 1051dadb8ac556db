package keyvault

import (
	"bytes"
	"io"
	"net/http"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// Limits of a secret.
const (
	maxValue       = 25_600 // bytes of a value
	maxContentType = 255    // characters
	maxTags        = 15
	maxTag         = 512 // characters of a tag's name or value

	// maxTime is the greatest time that an attribute can hold: the end of the
	// year 9999, which is what clients' date types reach.
	maxTime = 253_402_300_799
)

// secretBody is the body of a set and of an update. Members that it does not
// have are ignored.
type secretBody struct {
	Value       *string           `json:"value"` // required in a set; an update does not change it
	ContentType *string           `json:"contentType"`
	Tags        map[string]string `json:"tags"`
	Attributes  struct {
		Enabled   *bool  `json:"enabled"`
		NotBefore *int64 `json:"nbf"`
		Expires   *int64 `json:"exp"`
	} `json:"attributes"`
}

// DecodeText reads a request's body, which may hold a secret, as JSON into v.
// Text that cannot be stored as it was sent is refused, not repaired: a
// password with a character exchanged is worse than none. code is the plane's
// for a malformed request.
func DecodeText(r *http.Request, code string, v any) error {
	body, err := web.ReadBody(r, web.MaxBody, code)
	if err != nil {
		return err
	}
	if !utf8.Valid(body) {
		return fault.BadRequest(code, "The request body is not valid UTF-8.")
	}
	if loneSurrogate(body) {
		return fault.BadRequest(code, "The request body has an escaped surrogate without its other half.")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return web.DecodeJSON(r, code, v)
}

func (rq *request) decodeBody(v any) error { return DecodeText(rq.r, codeBadParameter, v) }

// loneSurrogate reports whether a JSON text has an escape of half a
// character, such as \ud800, without the other half. The decoder would put
// U+FFFD in its place.
func loneSurrogate(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+1 >= len(text) {
			return false
		}
		text = text[i:]
		r, ok := escapedUnit(text)
		switch {
		case !ok:
			text = text[2:] // another escape, whose second character is not looked at
		case r>>10 == 0xd800>>10:
			low, ok := escapedUnit(text[6:])
			if !ok || low>>10 != 0xdc00>>10 {
				return true
			}
			text = text[12:]
		case r>>10 == 0xdc00>>10:
			return true
		default:
			text = text[6:]
		}
	}
}

// escapedUnit reads an escape of the form \uXXXX at the start of text.
func escapedUnit(text []byte) (r uint32, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | uint32(c)
	}
	return r, true
}

// change checks the body against the limits and returns what it says.
func (b *secretBody) change() (SecretChange, error) {
	c := SecretChange{
		Value: b.Value, ContentType: b.ContentType, Tags: b.Tags,
		Enabled: b.Attributes.Enabled, NotBefore: b.Attributes.NotBefore, Expires: b.Attributes.Expires,
	}
	return c, c.check()
}

// check refuses what is beyond the limits.
func (c *SecretChange) check() error {
	if c.Value != nil && len(*c.Value) > maxValue {
		return badParameter("The property 'value' is longer than the limit of %d bytes.", maxValue)
	}
	if c.ContentType != nil && utf8.RuneCountInString(*c.ContentType) > maxContentType {
		return badParameter("The property 'contentType' is longer than the limit of %d characters.", maxContentType)
	}
	if len(c.Tags) > maxTags {
		return badParameter("The property 'tags' has more than %d tags.", maxTags)
	}
	for name, value := range c.Tags {
		if utf8.RuneCountInString(name) > maxTag || utf8.RuneCountInString(value) > maxTag {
			return badParameter("The property 'tags' has a name or value that is longer than the limit of %d characters.", maxTag)
		}
	}
	for _, t := range []*int64{c.NotBefore, c.Expires} {
		if t != nil && (*t < 0 || *t > maxTime) {
			return badParameter("The properties 'nbf' and 'exp' must be times in seconds since 1970, up to the year 9999.")
		}
	}
	return nil
}
