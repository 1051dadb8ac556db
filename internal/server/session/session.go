// Package session remembers what people have agreed to between two requests:
// families of refresh tokens, authorization codes, device codes, browsers'
// sign-ins, and sign-ins that are under way at an outside identity provider.
//
// It guarantees that
//
//   - everything is in the store, so that any of several servers can go on
//     with what another one began;
//   - what a client or browser presents is not in the store: records are under
//     its SHA-256, and refresh tokens are derived from a key that only a
//     sealed record has;
//   - a code is redeemed once, in the transaction that makes what it gives,
//     and what it gave ends when it is presented again;
//   - the refresh tokens of a sign-in end together, as soon as one that was
//     replaced is presented ([Sessions.Rotate]);
//   - what a person has of refresh tokens, browsers' sign-ins and authorization
//     codes is bounded in number: a new one ends the oldest;
//   - records that have expired are refused at once, and removed in time.
//
// Whether the person still exists, and has the same password, is for the
// caller to ask: a [Grant] carries what it needs for that.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// The reasons for which something that was presented is not good.
var (
	ErrUnknown  = errors.New("not known here")
	ErrExpired  = errors.New("expired")
	ErrIdle     = errors.New("not used for too long")
	ErrReused   = errors.New("presented again after it was replaced or redeemed")
	ErrPending  = errors.New("the person has not decided yet")
	ErrDeclined = errors.New("the person has declined")
)

// Grant is what a person agreed to: who, for which client, and how and when
// it was proved that it is this person.
type Grant struct {
	TenantID string    `json:"tenantId"`
	UserID   string    `json:"userId"` // object id
	ClientID string    `json:"clientId"`
	Scope    string    `json:"scope"`           // as asked for
	Stamp    string    `json:"stamp"`           // of the password at that time
	Methods  []string  `json:"methods"`         // amr: pwd, fed
	SignedIn time.Time `json:"signedIn"`        // when it was proved
	SignInID string    `json:"signInId"`        // sid: GUID of the sign-in
	Nonce    string    `json:"nonce,omitempty"` // of the authorization request

	// Redirected is set if the client got it at a redirect URI. All else is for
	// clients that are marked as public, as long as they are.
	Redirected bool `json:"redirected,omitempty"`

	// Confidential is set if the client has a credential of its own and must
	// present it with whatever this grant gives.
	Confidential bool `json:"confidential,omitempty"`
}

// Options adjust Sessions. The zero value suits a server.
type Options struct {
	Now func() time.Time // clock; time.Now if nil
	Log *slog.Logger     // told of records that could not be removed; nobody is if nil
}

// Sessions is the set of tables. Create with [New]; safe for concurrent use.
type Sessions struct {
	s   *store.Store
	now func() time.Time
	log *slog.Logger

	families *store.Table[family]
	codes    *store.Table[codeRecord]
	devices  *store.Table[deviceRecord]
	userCode *store.Table[userCodeRecord]
	browsers *store.Table[Browser]
	flows    *store.Table[Flow]
	secrets  *store.Table[secretRecord]

	userFamilies *quota[family]
	userCodes    *quota[codeRecord]
	userBrowsers *quota[Browser]
}

// New declares the tables. Call it before Store.Load.
func New(s *store.Store, o Options) *Sessions {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &Sessions{
		s: s, now: o.Now, log: o.Log,
		families: store.NewTable(s, "refreshfamily", store.TableOptions[family]{Mode: store.Sealed}),
		codes:    store.NewTable(s, "authorizationcode", store.TableOptions[codeRecord]{Mode: store.Sealed}),
		devices:  store.NewTable(s, "devicecode", store.TableOptions[deviceRecord]{Mode: store.Sealed}),
		userCode: store.NewTable(s, "usercode", store.TableOptions[userCodeRecord]{Mode: store.Sealed}),
		browsers: store.NewTable(s, "browsersession", store.TableOptions[Browser]{Mode: store.Sealed}),
		flows:    store.NewTable(s, "signinflow", store.TableOptions[Flow]{Mode: store.Sealed}),
		secrets:  store.NewTable(s, "sessionsecret", store.TableOptions[secretRecord]{Mode: store.Sealed}),
	}
	lists := func(name string) *store.Table[owned] {
		return store.NewTable(s, name, store.TableOptions[owned]{Mode: store.Sealed})
	}
	t.userFamilies = &quota[family]{lists("userrefreshfamilies"), t.families, maxFamilies, refreshLife}
	t.userCodes = &quota[codeRecord]{lists("userauthorizationcodes"), t.codes, maxCodes, codeMemory}
	t.userBrowsers = &quota[Browser]{lists("userbrowsersessions"), t.browsers, maxBrowsers, BrowserLife}
	return t
}

// secretRecord is a key that all servers share.
type secretRecord struct {
	Key []byte `json:"key"`
}

// secret returns the key of a purpose, which the first to ask makes.
func (s *Sessions) secret(ctx context.Context, purpose string) ([]byte, error) {
	r, ok, err := s.secrets.Load(ctx, purpose)
	if err != nil || ok {
		return r.Key, err
	}
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		if r, ok, err = s.secrets.Get(tx, purpose); err != nil || ok {
			return err
		}
		r.Key = random(32)
		return s.secrets.Put(tx, purpose, r)
	})
	return r.Key, err
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return b
}

var b64 = base64.RawURLEncoding.Strict()

// newText makes a text that nobody can guess. The prefix says what it is, for
// scanners of source code and so that one kind is never taken for another.
func newText(prefix string) string { return prefix + b64.EncodeToString(random(32)) }

// keyOf is the key in the store of a text that [newText] made. ok is false for
// what it cannot have made. Whoever can read the store's keys learns nothing
// from the hash of 256 random bits.
func keyOf(prefix, text string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(rest) != b64.EncodedLen(32) {
		return "", false
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]), true
}
