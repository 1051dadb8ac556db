package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// The lives of refresh tokens.
const (
	refreshLife = 90 * 24 * time.Hour // of a family, from the sign-in
	refreshIdle = 24 * 24 * time.Hour // of a family that is not used

	refreshLasts = time.Minute     // of a generation, at least; the first one excepted
	refreshGrace = 2 * time.Minute // of a generation, after it was replaced
)

// family is a sign-in's refresh tokens, under a random id.
//
// Every answer has a new token. They come in generations: who presents one of
// the present generation begins the next, unless this one is younger than
// refreshLasts. Those of the generation before are good for refreshGrace more,
// and lead to the present one. Whatever is older was left behind long ago: it
// ends the family.
//
// The grace is for clients that did not get the answer and ask again. That a
// generation lasts for a while is for az. It keeps one refresh token for all
// tenants and resources in a file; several of its processes read the same one,
// use it at the same moment, and write what they got in any order. Within one
// generation it does not matter which of the answers is the last in the file.
// The first generation is spent by the process that signed in, and by no
// other, so it need not last.
//
// A thief gains little by it. Of two who hold tokens of one family and both
// use them, one comes with a token of a generation that the other has left,
// whoever is first; then the family ends.
type family struct {
	Grant
	Key        []byte    `json:"key"` // of the tokens' MACs
	Generation uint32    `json:"generation"`
	Started    time.Time `json:"started"` // of the generation
	Created    time.Time `json:"created"`
}

func (f *family) expires() time.Time {
	if idle := f.Started.Add(refreshIdle); idle.Before(f.Created.Add(refreshLife)) {
		return idle
	}
	return f.Created.Add(refreshLife)
}

// The form of a refresh token: prefix, then in base64url the family's id, the
// generation, random bytes that make each token another one, and a MAC over
// all of them under the family's key.
const (
	refreshPrefix = "pkr1_"
	familyIDLen   = 16
	signedLen     = familyIDLen + 4 + 8
	refreshLen    = signedLen + sha256.Size
)

// token makes a token of the present generation.
func (f *family) token(id []byte) string {
	b := binary.BigEndian.AppendUint32(append(make([]byte, 0, refreshLen), id...), f.Generation)
	b = append(b, random(signedLen-len(b))...)
	mac := hmac.New(sha256.New, f.Key)
	mac.Write(b)
	return refreshPrefix + b64.EncodeToString(mac.Sum(b))
}

// presented is a refresh token, taken apart.
type presented struct {
	signed     []byte // what the MAC covers
	id         []byte
	generation uint32
	mac        []byte
}

// parseRefresh reads a refresh token's form; nothing is believed yet.
func parseRefresh(text string) (p presented, ok bool) {
	rest, ok := strings.CutPrefix(text, refreshPrefix)
	if !ok || len(rest) != b64.EncodedLen(refreshLen) || strings.ContainsAny(rest, "\r\n") { // which the decoder skips
		return p, false
	}
	b, err := b64.DecodeString(rest)
	if err != nil || len(b) != refreshLen {
		return p, false
	}
	return presented{b[:signedLen], b[:familyIDLen], binary.BigEndian.Uint32(b[familyIDLen:]), b[signedLen:]}, true
}

func (p *presented) key() string { return hex.EncodeToString(p.id) }

// judge says whether a token of the family is good now. Only a token that we
// made is ever called reused: who knows an id but no key cannot end a family.
func (f *family) judge(p *presented, now time.Time) error {
	mac := hmac.New(sha256.New, f.Key)
	mac.Write(p.signed)
	switch {
	case !hmac.Equal(mac.Sum(nil), p.mac):
		return ErrUnknown
	case !now.Before(f.Created.Add(refreshLife)):
		return ErrExpired
	case !now.Before(f.Started.Add(refreshIdle)):
		return ErrIdle
	case p.generation == f.Generation:
		return nil
	case p.generation+1 == f.Generation && now.Before(f.Started.Add(refreshGrace)):
		return nil
	}
	return ErrReused
}

// Refresh reads what a refresh token stands for, without using it; but one
// that was left behind ends its family here too. The errors are [ErrUnknown],
// [ErrExpired], [ErrIdle] and [ErrReused]; with the last three the grant is
// returned as well, for whoever writes down the refusal.
func (s *Sessions) Refresh(ctx context.Context, token string) (Grant, error) {
	p, ok := parseRefresh(token)
	if !ok {
		return Grant{}, ErrUnknown
	}
	f, ok, err := s.families.Load(ctx, p.key())
	if err != nil {
		return Grant{}, err
	}
	if !ok {
		return Grant{}, ErrUnknown
	}
	switch err := f.judge(&p, s.now()); err {
	case ErrUnknown:
		return Grant{}, err
	case ErrReused:
		_, err = s.Rotate(ctx, token)
		return f.Grant, err
	default:
		return f.Grant, err
	}
}

// Rotate uses a refresh token and returns the next. One that was left behind
// ends the family, with [ErrReused].
//
// If the process dies before the answer is out, the token presented is good
// for refreshGrace more.
func (s *Sessions) Rotate(ctx context.Context, token string) (next string, err error) {
	p, ok := parseRefresh(token)
	if !ok {
		return "", ErrUnknown
	}
	var refusal error
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		next, refusal = "", nil
		f, ok, err := s.families.Get(tx, p.key())
		if err != nil {
			return err
		}
		if !ok {
			refusal = ErrUnknown
			return nil
		}
		now := s.now()
		switch refusal = f.judge(&p, now); {
		case refusal == ErrReused:
			s.families.Delete(tx, p.key())
			return nil
		case refusal != nil:
			return nil
		}
		if p.generation != f.Generation || f.Generation > 1 && now.Before(f.Started.Add(refreshLasts)) {
			next = f.token(p.id)
			return nil
		}
		f.Generation, f.Started = f.Generation+1, now.UTC()
		next = f.token(p.id)
		return s.families.Put(tx, p.key(), f)
	})
	if err == nil {
		err = refusal
	}
	return next, err
}

// Start begins a family and returns its first refresh token.
func (s *Sessions) Start(ctx context.Context, g Grant) (token string, err error) {
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		token, _, err = s.start(tx, g)
		return err
	})
	return token, err
}

func (s *Sessions) start(tx *store.Tx, g Grant) (token, key string, err error) {
	id := random(familyIDLen)
	now := s.now().UTC()
	g.Nonce = "" // that was for the first id token
	f := family{Grant: g, Key: random(32), Generation: 1, Started: now, Created: now}
	key = hex.EncodeToString(id)
	return f.token(id), key, s.userFamilies.add(tx, g.UserID, key, f, now)
}
