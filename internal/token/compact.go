package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// maxToken is the longest token that we look at, in bytes. Entra's reach
// about 10 KiB with 200 groups.
const maxToken = 16 << 10

// strict64 refuses padding and bits that do not belong to a byte, so that
// bytes have one spelling.
var strict64 = base64.RawURLEncoding.Strict()

// compact is a JWS in compact form, taken apart.
type compact struct {
	signed    string // what the signature covers: the first two parts
	header    header
	payload   []byte
	signature []byte
}

// header is what we read of a JOSE header. Other members (jku, x5u, jwk, x5c
// and whatever may come) are not looked at: a key is never taken from a token.
type header struct {
	alg, kid, typ, x5t, x5tS256 string
}

var (
	errLong  = fmt.Errorf("longer than %d bytes", maxToken)
	errParts = errors.New("not three parts")
	errCrit  = errors.New("header has an extension that must be understood")
	errAlg   = errors.New("header has no alg")
)

// parseCompact reads a token strictly. The signature is not checked and may
// be of any length but zero.
func parseCompact(raw string) (c compact, err error) {
	if len(raw) > maxToken {
		return c, errLong
	}
	first, last := strings.IndexByte(raw, '.'), strings.LastIndexByte(raw, '.')
	if strings.Count(raw, ".") != 2 || first == 0 || last == first+1 || last == len(raw)-1 {
		return c, errParts
	}
	head, err := decode64(raw[:first])
	if err != nil {
		return c, fmt.Errorf("header: %w", err)
	}
	if c.header, err = parseHeader(head); err != nil {
		return c, fmt.Errorf("header: %w", err)
	}
	if c.payload, err = decode64(raw[first+1 : last]); err != nil {
		return c, fmt.Errorf("payload: %w", err)
	}
	if c.signature, err = decode64(raw[last+1:]); err != nil {
		return c, fmt.Errorf("signature: %w", err)
	}
	c.signed = raw[:last]
	return c, nil
}

var errBase64 = errors.New("not strict base64url")

// decode64 decodes base64url. The standard decoder skips line ends, even when
// strict.
func decode64(s string) ([]byte, error) {
	if strings.IndexByte(s, '\n') >= 0 || strings.IndexByte(s, '\r') >= 0 {
		return nil, errBase64
	}
	b, err := strict64.DecodeString(s)
	if err != nil {
		return nil, errBase64
	}
	return b, nil
}

func parseHeader(data []byte) (h header, err error) {
	err = members(data, func(name, value []byte) error {
		var to *string
		switch string(name) {
		case "alg":
			to = &h.alg
		case "kid":
			to = &h.kid
		case "typ":
			to = &h.typ
		case "x5t":
			to = &h.x5t
		case "x5t#S256":
			to = &h.x5tS256
		case "crit", "b64":
			// b64 changes what is signed, and needs crit to be allowed at all.
			return errCrit
		default:
			return nil
		}
		var err error
		if *to, err = stringValue(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err == nil && h.alg == "" {
		err = errAlg
	}
	return h, err
}
