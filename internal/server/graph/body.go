package graph

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

// body is the JSON object of a request, member by member.
type body map[string]json.RawMessage

// body reads the request's body. An absent one is an error.
func (c *call) body() (body, error) {
	var raw json.RawMessage
	if err := web.DecodeJSON(c.r, codeBad, &raw); err != nil {
		return nil, err
	}
	var b body
	if json.Unmarshal(raw, &b) != nil || b == nil {
		return nil, badRequest("The request body must be a JSON object.")
	}
	return b, nil
}

// fields says what each property of a body does. It is only for what a caller
// may write: whatever it does not name is refused.
type fields map[string]func(name string, raw json.RawMessage) error

// set applies each property of the body, in order of name. It can be done
// again for another target.
func (b body) set(f fields) error {
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if strings.Contains(name, "@odata.") {
			continue // says of which type a value is
		}
		apply := f[name]
		if apply == nil {
			return badRequest("Invalid property '%s'.", clip(name))
		}
		if err := apply(name, b[name]); err != nil {
			return err
		}
	}
	return nil
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

// into decodes a value; null is the zero one.
func into[T any](v *T) func(string, json.RawMessage) error {
	return func(name string, raw json.RawMessage) error {
		var got T
		if err := json.Unmarshal(raw, &got); err != nil {
			return badRequest("Invalid value specified for property '%s'.", clip(name))
		}
		*v = got
		return nil
	}
}

func text(s *string) func(string, json.RawMessage) error    { return into(s) }
func texts(s *[]string) func(string, json.RawMessage) error { return into(s) }
func flag(b *bool) func(string, json.RawMessage) error      { return into(b) }

// required is a text that must not be taken away.
func required(s *string) func(string, json.RawMessage) error {
	return func(name string, raw json.RawMessage) error {
		var got string
		if err := text(&got)(name, raw); err != nil {
			return err
		}
		if strings.TrimSpace(got) == "" {
			return badRequest("Invalid value specified for property '%s': it must not be empty.", clip(name))
		}
		*s = got
		return nil
	}
}

// instantOf is a time, or none.
func instantOf(t *time.Time) func(string, json.RawMessage) error {
	return func(name string, raw json.RawMessage) error {
		var s *string
		if err := into(&s)(name, raw); err != nil || s == nil {
			return err
		}
		got, err := time.Parse(time.RFC3339, *s)
		if err != nil || got.Year() < 1970 || got.Year() > 9999 {
			return badRequest("Invalid value specified for property '%s': it must be a time such as 2030-01-31T00:00:00Z.", clip(name))
		}
		*t = got
		return nil
	}
}

// nested is an object; null changes nothing in it.
func nested(f fields) func(string, json.RawMessage) error {
	return func(name string, raw json.RawMessage) error {
		var b body
		if err := into(&b)(name, raw); err != nil {
			return err
		}
		return b.set(f)
	}
}

// only accepts one value, and null.
func only[T comparable](want T, why string) func(string, json.RawMessage) error {
	return func(name string, raw json.RawMessage) error {
		if isNull(raw) {
			return nil
		}
		var got T
		if err := into(&got)(name, raw); err != nil {
			return err
		}
		if got != want {
			return badRequest("Invalid value specified for property '%s': %s, so it can only be '%v'.", clip(name), why, want)
		}
		return nil
	}
}

// tokenVersion is 1, 2 or null, which is 1.
func tokenVersion(v *int) func(string, json.RawMessage) error {
	return func(name string, raw json.RawMessage) error {
		var n *int
		if err := into(&n)(name, raw); err != nil {
			return err
		}
		switch {
		case n == nil:
			*v = 1
		case *n == 1 || *n == 2:
			*v = *n
		default:
			return badRequest("Invalid value specified for property '%s': it must be 1 or 2.", clip(name))
		}
		return nil
	}
}

// ignored is for what is read elsewhere, or repeats what another property
// says.
func ignored(string, json.RawMessage) error { return nil }

// readOnly refuses what is not the caller's to set.
func readOnly(name string, _ json.RawMessage) error {
	return badRequest("Property '%s' is read-only and cannot be set.", clip(name))
}

// empty accepts nothing but what says nothing: what would have no effect here
// must not look as if it had.
func empty(name string, raw json.RawMessage) error {
	var v any
	if err := into(&v)(name, raw); err != nil {
		return err
	}
	if !web.Unset(v) {
		return badRequest("Property '%s' is not supported by this directory: leave it empty.", clip(name))
	}
	return nil
}

func passwordsElsewhere(name string, raw json.RawMessage) error {
	if empty(name, raw) != nil {
		return badRequest("Property '%s' cannot be set: use addPassword and removePassword.", clip(name))
	}
	return nil
}

// certificates reads keyCredentials; given is false if the body has none.
func (b body) certificates() (certs []directory.NewCertificate, given bool, err error) {
	raw, given := b["keyCredentials"]
	if !given {
		return nil, false, nil
	}
	var entries []body
	if err := into(&entries)("keyCredentials", raw); err != nil {
		return nil, true, err
	}
	for _, e := range entries {
		var n directory.NewCertificate
		var key *string
		if err := e.set(fields{
			"displayName": text(&n.DisplayName), "keyId": text(&n.KeyID), "key": into(&key),
			"startDateTime": instantOf(&n.Start), "endDateTime": instantOf(&n.End),
			"type":                only("AsymmetricX509Cert", "keys are X.509 certificates"),
			"usage":               only("Verify", "the keys verify the application's assertions"),
			"customKeyIdentifier": ignored, // the thumbprint: made from the key
		}); err != nil {
			return nil, true, err
		}
		if key != nil && *key != "" {
			if n.DER, err = certificate(*key); err != nil {
				return nil, true, err
			}
		}
		certs = append(certs, n)
	}
	return certs, true, nil
}

// certificate reads a key: base64 of a certificate in DER or PEM. The az
// command line leaves the line breaks of PEM in it.
func certificate(key string) ([]byte, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(key), ""))
	if err != nil || len(der) == 0 {
		return nil, badRequest("Invalid value specified for property 'key': it must be a certificate in base64.")
	}
	if bytes.HasPrefix(der, []byte("-----BEGIN")) {
		block, rest := pem.Decode(der)
		if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, badRequest("Invalid value specified for property 'key': it must be one certificate and nothing else.")
		}
		return block.Bytes, nil
	}
	return der, nil
}
