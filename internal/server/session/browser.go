package session

import (
	"context"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// BrowserLife is how long a browser stays signed in.
const BrowserLife = 12 * time.Hour

const (
	browserPrefix = "pks1_"
	flowPrefix    = "pkf1_"
)

// Browser is a browser in which somebody has signed in.
type Browser struct {
	TenantID string    `json:"tenantId"`
	UserID   string    `json:"userId"`
	Stamp    string    `json:"stamp"`    // of the password at that time
	Methods  []string  `json:"methods"`  // amr
	SignedIn time.Time `json:"signedIn"` // when it was proved who it is
	SignInID string    `json:"signInId"` // sid
}

func (b *Browser) expires() time.Time { return b.SignedIn.Add(BrowserLife) }

// SignIn makes the cookie of a browser in which somebody has just signed in.
// The cookie that it had before, if any, is good no more: one that somebody
// planted there opens nothing. Of too many browsers of a user, the oldest is
// signed out.
func (s *Sessions) SignIn(ctx context.Context, b Browser, before string) (cookie string, err error) {
	cookie = newText(browserPrefix)
	key, _ := keyOf(browserPrefix, cookie)
	old, had := keyOf(browserPrefix, before)
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		if had {
			if err := s.endBrowser(tx, old); err != nil {
				return err
			}
		}
		return s.userBrowsers.add(tx, b.UserID, key, b, s.now().UTC())
	})
	return cookie, err
}

// endBrowser ends a browser's sign-in, if there is one under the key.
func (s *Sessions) endBrowser(tx *store.Tx, key string) error {
	b, ok, err := s.browsers.Get(tx, key)
	if err != nil || !ok {
		return err
	}
	return s.userBrowsers.remove(tx, b.UserID, key)
}

// Browser finds who has signed in with a cookie.
func (s *Sessions) Browser(ctx context.Context, cookie string) (b Browser, ok bool, err error) {
	key, ok := keyOf(browserPrefix, cookie)
	if !ok {
		return Browser{}, false, nil
	}
	b, ok, err = s.browsers.Load(ctx, key)
	if err != nil || !ok || !s.now().Before(b.expires()) {
		return Browser{}, false, err
	}
	return b, true, nil
}

// SignOut ends a browser's sign-in.
func (s *Sessions) SignOut(ctx context.Context, cookie string) error {
	key, ok := keyOf(browserPrefix, cookie)
	if !ok {
		return nil
	}
	return s.s.Update(ctx, func(tx *store.Tx) error { return s.endBrowser(tx, key) })
}

// flowLife is how long a person may take at the outside identity provider.
const flowLife = 10 * time.Minute

// Flow is a sign-in under way at an outside identity provider.
type Flow struct {
	Binding  string    `json:"binding"`  // the browser that it began in, as the caller knows it again
	Nonce    string    `json:"nonce"`    // which the id token must have
	Verifier string    `json:"verifier"` // PKCE
	Return   string    `json:"return"`   // path and query of the page to go on with
	Created  time.Time `json:"created"`
}

func (f *Flow) expires() time.Time { return f.Created.Add(flowLife) }

// NewFlow remembers a flow and returns its state parameter.
func (s *Sessions) NewFlow(ctx context.Context, f Flow) (state string, err error) {
	f.Created = s.now().UTC()
	state = newText(flowPrefix)
	key, _ := keyOf(flowPrefix, state)
	err = s.s.Update(ctx, func(tx *store.Tx) error { return s.flows.Put(tx, key, f) })
	return state, err
}

// TakeFlow returns the flow of a state parameter, once.
func (s *Sessions) TakeFlow(ctx context.Context, state string) (f Flow, err error) {
	key, ok := keyOf(flowPrefix, state)
	if !ok {
		return Flow{}, ErrUnknown
	}
	var refusal error
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		refusal = nil
		if f, ok, err = s.flows.Get(tx, key); err != nil {
			return err
		}
		if !ok {
			refusal = ErrUnknown
			return nil
		}
		if !s.now().Before(f.expires()) {
			refusal = ErrExpired
		}
		s.flows.Delete(tx, key)
		return nil
	})
	if err == nil {
		err = refusal
	}
	return f, err
}
