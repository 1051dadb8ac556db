package token

import (
	"context"
	"crypto/sha256"
	"strconv"
	"time"
)

// Reason says why a token of ours was not accepted. The values are those of
// web.AuthReason.
type Reason uint8

// The reasons, in the order in which they are found.
const (
	Malformed    Reason = iota + 2 // not a JWT we could read
	UnknownKey                     // no key of ours has this kid, or the algorithm is not the key's
	BadSignature                   // signature wrong
	BadIssuer                      // another issuer
	BadAudience                    // meant for another resource
	Expired                        // exp has passed
	NotYet                         // nbf or iat is still to come
)

// VerifyError is the refusal of a token. Expected and Found are claims, key
// ids, times or what is wrong with the form, never the token.
type VerifyError struct {
	Reason   Reason
	Expected string
	Found    string
}

func (e *VerifyError) Error() string {
	switch e.Reason {
	case Malformed:
		return "token is malformed: " + e.Found
	case UnknownKey:
		return "token is signed by an unknown key: " + e.Found
	case BadSignature:
		return "token signature is wrong"
	case BadIssuer:
		return "token has another issuer: expected " + e.Expected + ", found " + e.Found
	case BadAudience:
		return "token has another audience: expected " + e.Expected + ", found " + e.Found
	case Expired:
		return "token has expired: it was valid until " + e.Found
	case NotYet:
		return "token is not yet valid: it will be from " + e.Found
	default:
		return "token is not accepted"
	}
}

// Expect is what a resource demands of a token.
type Expect struct {
	Issuer   func(iss, tid string) bool // is iss an issuer of tokens of the tenant tid? Required
	Audience func(aud string) bool      // is aud one of the resource's names? Required

	IssuerName, AudienceName string // what a refusal shows as expected; may be empty
}

// Verifier verifies our own access tokens. It remembers tokens whose
// signature was right until the signing keys change; times, issuer and
// audience are checked every time. Set the fields before first use and
// nothing after it; safe for concurrent use.
type Verifier struct {
	Keys   *Keys            // required; only keys of purpose [Tenant] are accepted
	Now    func() time.Time // clock; time.Now if nil
	Leeway time.Duration    // [Leeway] if zero
	Limit  int              // tokens to remember; 10,000 if zero

	seen memo[verified]
}

// verified is a token whose signature was right under the keys of a
// generation.
type verified struct {
	generation int64
	access     *Access
}

// Verify returns the claims of a token that is ours, in time, and what want
// demands. The claims are shared and must not be changed. Errors are
// *VerifyError, or failures of the store.
func (v *Verifier) Verify(ctx context.Context, raw string, want Expect) (*Access, error) {
	m, err := v.Keys.current(ctx)
	if err != nil {
		return nil, err
	}
	limit := v.Limit
	if limit <= 0 {
		limit = defaultMemo
	}
	key, signed, slot := memoSlot(raw)
	var access *Access
	if slot {
		if known, ok := v.seen.get(key, signed, limit); ok && known.generation == m.generation {
			access = known.access
		}
	}
	if access == nil {
		if access, err = authentic(m.purposes[Tenant], raw); err != nil {
			return nil, err
		}
		if slot {
			v.seen.put(key, signed, verified{m.generation, access}, limit)
		}
	}
	if err := v.check(access, want); err != nil {
		return nil, err
	}
	return access, nil
}

// authentic returns the claims of a token that one of the keys signed.
func authentic(keys *purposeKeys, raw string) (*Access, error) {
	c, err := parseCompact(raw)
	if err != nil {
		return nil, &VerifyError{Reason: Malformed, Found: err.Error()}
	}
	var key *signingKey
	if keys != nil {
		key = keys.byID[c.header.kid]
	}
	if key == nil {
		return nil, &VerifyError{Reason: UnknownKey, Found: "kid " + quote(c.header.kid)}
	}
	if c.header.alg != string(key.alg) {
		return nil, &VerifyError{Reason: UnknownKey, Expected: string(key.alg), Found: "alg " + quote(c.header.alg)}
	}
	sum := sha256.Sum256([]byte(c.signed))
	if !key.verify(sum[:], c.signature) {
		return nil, &VerifyError{Reason: BadSignature}
	}
	access, err := parseAccess(c.payload)
	if err != nil {
		return nil, &VerifyError{Reason: Malformed, Found: err.Error()}
	}
	return access, nil
}

// check compares an authentic token with the clock and with what is wanted.
func (v *Verifier) check(a *Access, want Expect) error {
	if !want.Issuer(a.Issuer, a.TenantID) {
		return &VerifyError{Reason: BadIssuer, Expected: want.IssuerName, Found: a.Issuer}
	}
	if !want.Audience(a.Audience) {
		return &VerifyError{Reason: BadAudience, Expected: want.AudienceName, Found: a.Audience}
	}
	leeway := v.Leeway
	if leeway <= 0 {
		leeway = Leeway
	}
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	switch validity(now(), a.NotBefore, a.IssuedAt, a.Expiry, leeway) {
	case Expired:
		return &VerifyError{Reason: Expired, Found: clock(a.Expiry)}
	case NotYet:
		return &VerifyError{Reason: NotYet, Found: clock(max(a.NotBefore, a.IssuedAt))}
	}
	return nil
}

// validity compares Unix times with the clock and returns Expired, NotYet or
// zero. Times that are absent from a token are zero and have passed.
func validity(now time.Time, notBefore, issued, expiry int64, leeway time.Duration) Reason {
	at, give := now.Unix(), int64(leeway/time.Second)
	switch {
	case at >= expiry+give:
		return Expired
	case at < max(notBefore, issued)-give:
		return NotYet
	}
	return 0
}

func clock(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

// quote makes a stranger's text fit for a log line.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
