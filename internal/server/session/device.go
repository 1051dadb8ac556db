package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// DeviceLife is how long a device code and its user code are good.
const DeviceLife = 15 * time.Minute

const devicePrefix = "pkd1_"

// userAlphabet are the characters of user codes: consonants, so that no code
// is a word, without those that are taken for a digit. Nine of them are 38
// bits, for something that lives for a quarter of an hour and may be guessed
// at a few times a minute.
const (
	userAlphabet = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLen  = 9
)

// Device is a request for a device code, as the person who confirms it is
// shown it.
type Device struct {
	ClientID string    `json:"clientId"`
	TenantID string    `json:"tenantId,omitempty"` // empty: that of whoever signs in
	Scope    string    `json:"scope"`
	Remote   string    `json:"remote"` // address that asked
	Created  time.Time `json:"created"`

	// Lapsed is set once the client has been told that the code expired, see
	// [Sessions.LapseDevice].
	Lapsed bool `json:"lapsed,omitempty"`
}

// deviceRecord is a device code in the store, under the hash of the code.
type deviceRecord struct {
	Device
	Declined bool   `json:"declined,omitempty"`
	Redeemed bool   `json:"redeemed,omitempty"`
	Grant    *Grant `json:"grant,omitempty"`  // once somebody has confirmed
	Family   string `json:"family,omitempty"` // that it gave
}

func (d *deviceRecord) expires() time.Time { return d.Created.Add(codeMemory) }

// userCodeRecord leads from a user code to the device code. It goes as soon
// as somebody has decided.
type userCodeRecord struct {
	Device  string    `json:"device"` // key
	Created time.Time `json:"created"`
}

func (u *userCodeRecord) expires() time.Time { return u.Created.Add(DeviceLife) }

// NewDevice makes a device code, which the client polls with, and the user
// code that the person types.
func (s *Sessions) NewDevice(ctx context.Context, d Device) (deviceCode, userCode string, err error) {
	d.Created = s.now().UTC()
	deviceCode = newText(devicePrefix)
	key, _ := keyOf(devicePrefix, deviceCode)
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		var userKey string
		for taken := true; taken; { // seldom twice: there are 10^11 codes
			userCode = newUserCode()
			if userKey, err = s.userKey(ctx, userCode); err != nil {
				return err
			}
			if _, taken, err = s.userCode.Get(tx, userKey); err != nil {
				return err
			}
		}
		if err := s.devices.Put(tx, key, deviceRecord{Device: d}); err != nil {
			return err
		}
		return s.userCode.Put(tx, userKey, userCodeRecord{Device: key, Created: d.Created})
	})
	return deviceCode, userCode, err
}

func newUserCode() string {
	out := make([]byte, 0, userCodeLen)
	const fair = 256 - 256%len(userAlphabet) // bytes from here on would favour the first characters
	for len(out) < userCodeLen {
		for _, b := range random(2 * userCodeLen) {
			if int(b) < fair && len(out) < userCodeLen {
				out = append(out, userAlphabet[int(b)%len(userAlphabet)])
			}
		}
	}
	return string(out)
}

// CanonicalUserCode brings what a person typed into the form of user codes: in
// capitals, without blanks and hyphens. ok is false for what cannot be one.
func CanonicalUserCode(typed string) (code string, ok bool) {
	if len(typed) > 4*userCodeLen {
		return "", false
	}
	code = strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(typed))
	if len(code) != userCodeLen {
		return "", false
	}
	return code, strings.Trim(code, userAlphabet) == ""
}

// userKey is the key in the store of a user code. A hash alone could be
// inverted by trying all codes, and keys are not sealed.
func (s *Sessions) userKey(ctx context.Context, code string) (string, error) {
	secret, err := s.secret(ctx, "usercode")
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(code))
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// UserCode finds the request that a user code belongs to, as long as nobody
// has decided about it. The error is [ErrUnknown] for all others.
func (s *Sessions) UserCode(ctx context.Context, typed string) (Device, error) {
	code, ok := CanonicalUserCode(typed)
	if !ok {
		return Device{}, ErrUnknown
	}
	key, err := s.userKey(ctx, code)
	if err != nil {
		return Device{}, err
	}
	u, ok, err := s.userCode.Load(ctx, key)
	if err != nil {
		return Device{}, err
	}
	if !ok || !s.now().Before(u.expires()) {
		return Device{}, ErrUnknown
	}
	d, ok, err := s.devices.Load(ctx, u.Device)
	if err == nil && !ok {
		err = ErrUnknown
	}
	return d.Device, err
}

// Decide writes down what the person decided: a grant, or nil to decline. The
// user code is used up by it; [ErrUnknown] if it is not good any more.
func (s *Sessions) Decide(ctx context.Context, typed string, g *Grant) error {
	code, ok := CanonicalUserCode(typed)
	if !ok {
		return ErrUnknown
	}
	key, err := s.userKey(ctx, code)
	if err != nil {
		return err
	}
	var refusal error
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		refusal = nil
		u, ok, err := s.userCode.Get(tx, key)
		if err != nil {
			return err
		}
		if !ok || !s.now().Before(u.expires()) {
			refusal = ErrUnknown
			return nil
		}
		d, ok, err := s.devices.Get(tx, u.Device)
		if err != nil {
			return err
		}
		if !ok {
			refusal = ErrUnknown
			return nil
		}
		d.Grant, d.Declined = g, g == nil
		s.userCode.Delete(tx, key)
		return s.devices.Put(tx, u.Device, d)
	})
	if err == nil {
		err = refusal
	}
	return err
}

// DeviceCode reads what a device code stands for by now, without redeeming
// it: the request, and the grant if there is one. The errors are [ErrUnknown],
// [ErrExpired], [ErrPending], [ErrDeclined] and [ErrReused], which ends what
// the code gave. If somebody has confirmed, the grant is returned with them as
// well, for whoever writes down the refusal.
func (s *Sessions) DeviceCode(ctx context.Context, code string) (Device, Grant, error) {
	key, ok := keyOf(devicePrefix, code)
	if !ok {
		return Device{}, Grant{}, ErrUnknown
	}
	d, ok, err := s.devices.Load(ctx, key)
	if err != nil {
		return Device{}, Grant{}, err
	}
	if !ok {
		return Device{}, Grant{}, ErrUnknown
	}
	var g Grant
	if d.Grant != nil {
		g = *d.Grant
	}
	err = d.judge(s.now())
	if err == ErrReused {
		_, err = s.redeemDevice(ctx, key, false)
	}
	return d.Device, g, err
}

func (d *deviceRecord) judge(now time.Time) error {
	switch {
	case d.Redeemed:
		return ErrReused
	case d.Declined:
		return ErrDeclined
	case !now.Before(d.Created.Add(DeviceLife)):
		return ErrExpired
	case d.Grant == nil:
		return ErrPending
	}
	return nil
}

// LapseDevice notes that the client of a device code has been told that it
// expired. It does nothing to a code that has not.
func (s *Sessions) LapseDevice(ctx context.Context, code string) error {
	key, ok := keyOf(devicePrefix, code)
	if !ok {
		return nil
	}
	return s.s.Update(ctx, func(tx *store.Tx) error {
		d, ok, err := s.devices.Get(tx, key)
		if err != nil || !ok || d.Lapsed || d.judge(s.now()) != ErrExpired {
			return err
		}
		d.Lapsed = true
		return s.devices.Put(tx, key, d)
	})
}

// RedeemDevice uses a device code up. If offline is set, it begins a family of
// refresh tokens and returns the first. Errors are those of
// [Sessions.DeviceCode].
func (s *Sessions) RedeemDevice(ctx context.Context, code string, offline bool) (refresh string, err error) {
	key, ok := keyOf(devicePrefix, code)
	if !ok {
		return "", ErrUnknown
	}
	return s.redeemDevice(ctx, key, offline)
}

func (s *Sessions) redeemDevice(ctx context.Context, key string, offline bool) (refresh string, err error) {
	var refusal error
	err = s.s.Update(ctx, func(tx *store.Tx) error {
		refresh, refusal = "", nil
		d, ok, err := s.devices.Get(tx, key)
		if err != nil {
			return err
		}
		if !ok {
			refusal = ErrUnknown
			return nil
		}
		if refusal = d.judge(s.now()); refusal != nil {
			if refusal == ErrReused && d.Family != "" {
				s.families.Delete(tx, d.Family)
				d.Family = ""
				return s.devices.Put(tx, key, d)
			}
			return nil
		}
		d.Redeemed = true
		if offline {
			if refresh, d.Family, err = s.start(tx, *d.Grant); err != nil {
				return err
			}
		}
		return s.devices.Put(tx, key, d)
	})
	if err == nil {
		err = refusal
	}
	return refresh, err
}
