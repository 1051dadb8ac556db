package token

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ForeignKind says why a foreign issuer's token was not accepted.
type ForeignKind uint8

// The kinds.
const (
	Unreachable  ForeignKind = iota + 1 // its documents could not be fetched, or may not be
	Unparsable                          // its documents are not what they must be, issuer included
	NoKey                               // it publishes no usable key with this kid
	BadForeign                          // signature wrong
	BadAlgorithm                        // not RS256
)

func (k ForeignKind) String() string {
	switch k {
	case Unreachable:
		return "documents cannot be fetched"
	case Unparsable:
		return "documents are not as they must be"
	case NoKey:
		return "no such key"
	case BadForeign:
		return "signature is wrong"
	case BadAlgorithm:
		return "algorithm is not RS256"
	default:
		return "not accepted"
	}
}

// ForeignError is a refusal by [Foreign]. Its text and cause are for the
// operator: they name addresses, so that a client must not see them.
type ForeignError struct {
	Kind   ForeignKind
	Issuer string
	KeyID  string // kid of the token
	URL    string // document that failed; may be empty
	Err    error  // cause; may be nil
}

func (e *ForeignError) Error() string {
	s := "issuer " + quote(e.Issuer) + ": " + e.Kind.String()
	if e.KeyID != "" {
		s += ": kid " + quote(e.KeyID)
	}
	if e.URL != "" {
		s += ": " + quote(e.URL)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *ForeignError) Unwrap() error { return e.Err }

// Foreign verifies tokens of foreign issuers by the issuer's RS256 keys. Set
// the fields before first use and nothing after it; the zero value is usable
// and reaches public addresses over https only; safe for concurrent use.
//
// The keys of an issuer are fetched when they are first needed and kept for
// an hour; after half of it they are fetched again behind the back of whoever
// uses them. A kid that is not among them makes us fetch again, but not more
// often than every five seconds, whatever is sent to us. An issuer that fails
// is left alone for ten seconds; meanwhile, and for at most a day, keys that
// were fetched before remain in use.
type Foreign struct {
	// Registered returns the keys that an operator registered or pinned for an
	// issuer; with ok they are all that counts and nothing is fetched. The set
	// is not changed. May be nil.
	Registered func(ctx context.Context, issuer string) (set *jose.JSONWebKeySet, ok bool, err error)

	Now           func() time.Time // clock; time.Now if nil
	AllowLoopback bool             // documents may be on this machine, and then over http too
	AllowPrivate  bool             // documents may be at private addresses
	RootCAs       *x509.CertPool   // the system's if nil
	Timeout       time.Duration    // for both documents of an issuer; 5 seconds if zero
	Log           *slog.Logger     // told of fetches that failed; nobody is if nil

	// Resolve looks up a host's addresses; the system's resolver if nil.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	once   sync.Once
	client *http.Client
	slots  *slots // bounds the fetches under way

	mu      sync.Mutex
	issuers map[string]*issuerKeys

	seen memo[*rsa.PublicKey] // tokens, with the key that signed them
}

func (f *Foreign) start() {
	f.once.Do(func() {
		if f.Now == nil {
			f.Now = time.Now
		}
		if f.Timeout <= 0 {
			f.Timeout = fetchTime
		}
		if f.Log == nil {
			f.Log = slog.New(slog.DiscardHandler)
		}
		f.client = f.newClient()
		f.slots = newSlots(maxFetches, maxHostFetches)
		f.issuers = map[string]*issuerKeys{}
	})
}

// VerifyAssertion checks the signature of a token by the key of its issuer
// that it names. The caller has matched the issuer before, as this may fetch
// from it, and checks the other claims. Tokens that were right are remembered
// for as long as the issuer's key is the same. Errors are *ForeignError, or
// failures of Registered or of ctx.
func (f *Foreign) VerifyAssertion(ctx context.Context, a *Assertion) error {
	if a.Algorithm != string(jose.RS256) {
		return &ForeignError{Kind: BadAlgorithm, Issuer: a.Issuer, KeyID: a.KeyID}
	}
	key, err := f.key(ctx, a.Issuer, a.KeyID)
	if err != nil {
		return err
	}
	slot, signed, ok := memoSlot(a.raw)
	if ok {
		// The key is looked up first and compared, so that what is remembered
		// never outlives it.
		if by, known := f.seen.get(slot, signed, defaultMemo); known && by.Equal(key) {
			return nil
		}
	}
	if err := a.VerifySignature(key); err != nil {
		return &ForeignError{Kind: BadForeign, Issuer: a.Issuer, KeyID: a.KeyID, Err: err}
	}
	if ok {
		f.seen.put(slot, signed, key, defaultMemo)
	}
	return nil
}
