package sts

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/web"
)

// Limits of a token request.
const (
	maxForm       = 128 << 10 // bytes of the body; an assertion has a few thousand
	maxParameters = 100
)

// form is a parsed body: its parameters, each at most once. One without a
// value is as good as absent; those that nobody reads have no effect.
type form map[string]string

// readForm reads a request's form. Only the body counts: a credential in the
// query would be in other servers' logs.
func readForm(r *http.Request) (form, error) {
	mt, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mt != "application/x-www-form-urlencoded" {
		return nil, errMalformed("The content type must be application/x-www-form-urlencoded.")
	}
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
		return nil, errMalformed("The charset must be utf-8.")
	}
	body, err := web.ReadBody(r, maxForm, "BadRequest")
	if err != nil {
		return nil, err
	}
	return parseForm(string(body))
}

// parseForm parses application/x-www-form-urlencoded strictly: a parameter
// that occurs twice could be read differently by somebody else, so the
// request is refused (RFC 6749 3.2), as is anything that is not validly
// encoded UTF-8.
func parseForm(body string) (form, error) {
	f := make(form, 8)
	n := 0
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		if n++; n > maxParameters {
			return nil, errMalformed("The request has more than %d parameters.", maxParameters)
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, errMalformed("The request body is not validly encoded.")
		}
		if _, twice := f[name]; twice {
			return nil, errDuplicate(name)
		}
		f[name] = value
	}
	return f, nil
}

// basic returns the client id and secret of an Authorization header of the
// Basic scheme; ok is false if there is none. Both are form-encoded inside it
// (RFC 6749 2.3.1).
func basic(r *http.Request) (clientID, secret string, ok bool, err error) {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false, nil
	}
	id, pass, ok := r.BasicAuth()
	if !ok {
		return "", "", false, errMalformed("The Authorization header is malformed.")
	}
	clientID, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(pass)
	if err1 != nil || err2 != nil || !utf8.ValidString(clientID) || !utf8.ValidString(secret) {
		return "", "", false, errMalformed("The credentials in the Authorization header are not form-encoded.")
	}
	return clientID, secret, true, nil
}

// claimsRequest is the part of the claims parameter that is read.
type claimsRequest struct {
	AccessToken struct {
		Capabilities struct {
			Values []string `json:"values"`
		} `json:"xms_cc"`
	} `json:"access_token"`
}

// understandsCAE reads the claims parameter: whether the client declares that
// it handles continuous access evaluation. Key Vault's clients always do; az
// writes CP1.
func understandsCAE(claims string) (bool, error) {
	if claims == "" {
		return false, nil
	}
	var c claimsRequest
	if err := json.Unmarshal([]byte(claims), &c); err != nil {
		return false, errMalformed("The parameter 'claims' is not a valid claims request in JSON.")
	}
	for _, v := range c.AccessToken.Capabilities.Values {
		if strings.EqualFold(v, "cp1") {
			return true, nil
		}
	}
	return false, nil
}
