package session

import (
	"context"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// codeLife is how long an authorization code is good. A client redeems it at
// once; the rest is for clocks and slow lines.
const codeLife = 3 * time.Minute

const codePrefix = "pkc1_"

// Code is what an authorization code stands for, besides the grant: what must
// be the same when it is redeemed.
type Code struct {
	Grant
	RedirectURI string `json:"redirectUri"`
	Challenge   string `json:"challenge"` // PKCE, S256
}

// codeRecord is a code in the store. It stays for codeMemory, also when it was
// redeemed: if it is presented a second time, one of the two is a thief, and
// what it gave ends.
type codeRecord struct {
	Code
	Created  time.Time `json:"created"`
	Redeemed bool      `json:"redeemed,omitempty"`
	Family   string    `json:"family,omitempty"` // that it gave
}

// codeMemory is how long a code is remembered after it was made.
const codeMemory = time.Hour

func (c *codeRecord) expires() time.Time { return c.Created.Add(codeMemory) }

// NewCode makes an authorization code. A user's oldest is forgotten when there
// are too many: it is good no more and, if it was redeemed, what it gave does
// not end any more when it is presented again.
func (s *Sessions) NewCode(ctx context.Context, c Code) (text string, err error) {
	text = newText(codePrefix)
	key, _ := keyOf(codePrefix, text)
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		now := s.now().UTC()
		return s.userCodes.add(tx, c.UserID, key, codeRecord{Code: c, Created: now}, now)
	})
	return text, err
}

// Code reads what a code stands for, without redeeming it. One that was
// redeemed before ends what it gave, and is [ErrReused]; other errors are
// [ErrUnknown] and [ErrExpired].
func (s *Sessions) Code(ctx context.Context, text string) (Code, error) {
	key, ok := keyOf(codePrefix, text)
	if !ok {
		return Code{}, ErrUnknown
	}
	r, ok, err := s.codes.Load(ctx, key)
	switch {
	case err != nil:
		return Code{}, err
	case !ok:
		return Code{}, ErrUnknown
	case r.Redeemed:
		_, err := s.redeem(ctx, key, false)
		return r.Code, err
	case !s.now().Before(r.Created.Add(codeLife)):
		return r.Code, ErrExpired
	}
	return r.Code, nil
}

// RedeemCode uses a code up. If offline is set, it begins a family of refresh
// tokens and returns the first. Errors are those of [Sessions.Code].
func (s *Sessions) RedeemCode(ctx context.Context, text string, offline bool) (refresh string, err error) {
	key, ok := keyOf(codePrefix, text)
	if !ok {
		return "", ErrUnknown
	}
	return s.redeem(ctx, key, offline)
}

func (s *Sessions) redeem(ctx context.Context, key string, offline bool) (refresh string, err error) {
	var refusal error
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		refresh, refusal = "", nil
		r, ok, err := s.codes.Get(tx, key)
		switch {
		case err != nil:
			return err
		case !ok:
			refusal = ErrUnknown
			return nil
		case r.Redeemed:
			refusal = ErrReused
			if r.Family != "" {
				s.families.Delete(tx, r.Family)
				r.Family = ""
				return s.codes.Put(tx, key, r)
			}
			return nil
		case !s.now().Before(r.Created.Add(codeLife)):
			refusal = ErrExpired
			return nil
		}
		r.Redeemed = true
		if offline {
			if refresh, r.Family, err = s.start(tx, r.Grant); err != nil {
				return err
			}
		}
		return s.codes.Put(tx, key, r)
	})
	if err == nil {
		err = refusal
	}
	return refresh, err
}
