package directory

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// ClientSecret describes a client secret; neither its text nor its hash is in
// it.
type ClientSecret struct {
	KeyID       string    `json:"keyId"` // GUID
	DisplayName string    `json:"displayName,omitempty"`
	Hint        string    `json:"hint,omitempty"` // first three characters of a generated secret, as Graph shows; empty for a chosen one
	Start       time.Time `json:"startDateTime"`
	End         time.Time `json:"endDateTime"`
}

// NewSecret asks for a client secret.
type NewSecret struct {
	DisplayName string
	Start, End  time.Time // validity; now and two years later if zero
	Text        string    // the secret itself, 8 to 256 bytes; generated if empty, which is better
}

// secretHash is what is kept of a secret or password, in a Sealed table.
//
// Generated secrets have more than 200 bits of entropy: nobody guesses them,
// so one SHA-256 is as good as any slow hash and costs a token request
// nothing. What a person chose may be guessable, so if the table were ever
// opened it must cost the thief dearly: Argon2id.
type secretHash struct {
	SHA256   []byte `json:"sha256,omitempty"`
	Argon2id string `json:"argon2id,omitempty"` // PHC string
}

// secretDefaultLife is the validity of a secret whose end is not given.
const secretDefaultLife = 2 * 365 * 24 * time.Hour

const passwordKey = "password" // second part of the key of a user's hash; applications have key ids there

// credentials are those of an application or of a service principal.
type credentials struct {
	secrets      *[]ClientSecret
	certificates *[]ClientCertificate
}

// editCredentials changes the credentials of an application or of the service
// principal of one. That of a managed identity has none: a fault of kind
// Forbidden.
func (d *Directory) editCredentials(ctx context.Context, objectID string, edit func(*store.Tx, credentials) error) error {
	_, err := d.editApplication(ctx, objectID, func(tx *store.Tx, a *Application) error {
		return edit(tx, credentials{&a.Secrets, &a.Certificates})
	})
	if !fault.Is(err, fault.Missing) {
		return err
	}
	_, err = d.editPrincipal(ctx, objectID, func(tx *store.Tx, p *ServicePrincipal) error {
		if p.Kind == KindManagedIdentity {
			return ofIdentity(p)
		}
		return edit(tx, credentials{&p.Secrets, &p.Certificates})
	})
	if fault.Is(err, fault.Missing) {
		return fault.NotFound("Request_ResourceNotFound", "The application or service principal '%s' does not exist.", clip(objectID))
	}
	return err
}

// AddSecret gives an application, or the service principal of one, a client
// secret and returns its text, which is not kept and cannot be shown again.
func (d *Directory) AddSecret(ctx context.Context, objectID string, n NewSecret) (_ ClientSecret, text string, err error) {
	id, _ := CanonicalID(objectID)
	s := ClientSecret{KeyID: d.newID(), DisplayName: n.DisplayName, Start: n.Start.UTC(), End: n.End.UTC()}
	if n.Start.IsZero() {
		s.Start = d.now().UTC()
	}
	if n.End.IsZero() {
		s.End = s.Start.Add(secretDefaultLife)
	}
	if !s.End.After(s.Start) {
		return ClientSecret{}, "", fault.BadRequest("BadRequest", "The end of the secret's validity is not after its start.")
	}
	if err := checkText("name", n.DisplayName, maxName); err != nil {
		return ClientSecret{}, "", err
	}
	var hash secretHash
	if text = n.Text; text == "" {
		text = generateSecret()
		sum := sha256.Sum256([]byte(text))
		hash.SHA256, s.Hint = sum[:], text[:3]
	} else {
		if len(text) < 8 || len(text) > maxSecret || !utf8.ValidString(text) {
			return ClientSecret{}, "", fault.BadRequest("BadRequest", "A client secret must have between 8 and %d bytes of UTF-8.", maxSecret)
		}
		if hash.Argon2id, err = d.slowHash(ctx, text); err != nil {
			return ClientSecret{}, "", err
		}
	}
	err = d.editCredentials(ctx, id, func(tx *store.Tx, c credentials) error {
		if len(*c.secrets) >= maxEntries {
			return fault.BadRequest("BadRequest", "There are %d client secrets already: remove those that are not used.", maxEntries)
		}
		*c.secrets = append(*c.secrets, s)
		return d.hashes.Put(tx, id+"/"+s.KeyID, hash)
	})
	if err != nil {
		return ClientSecret{}, "", err
	}
	return s, text, nil
}

// RemoveSecret takes a client secret away from an application or a service
// principal.
func (d *Directory) RemoveSecret(ctx context.Context, objectID, keyID string) (existed bool, err error) {
	id, _ := CanonicalID(objectID)
	err = d.editCredentials(ctx, id, func(tx *store.Tx, c credentials) error {
		n := len(*c.secrets)
		*c.secrets = slices.DeleteFunc(*c.secrets, func(s ClientSecret) bool { return strings.EqualFold(s.KeyID, keyID) })
		if existed = len(*c.secrets) < n; existed {
			d.hashes.Delete(tx, id+"/"+strings.ToLower(keyID))
		}
		return nil
	})
	return existed, err
}

// maxSecret is the longest secret or password, in bytes.
const maxSecret = 256

// VerifySecret finds which of a client's secrets text is, expired ones
// included: the caller looks at Start and End. Comparison is in constant
// time; generated secrets cost microseconds, chosen ones some tens of
// milliseconds, of which few run at once.
func (d *Directory) VerifySecret(ctx context.Context, c *Client, text string) (_ ClientSecret, ok bool, err error) {
	if text == "" || len(text) > maxSecret || len(c.Secrets) == 0 {
		return ClientSecret{}, false, nil
	}
	sum := sha256.Sum256([]byte(text))
	slow := map[int]string{}
	for i, s := range c.Secrets {
		h, found, err := d.hashes.Load(ctx, c.Owner+"/"+s.KeyID)
		if err == nil && !found { // of the service principal
			h, found, err = d.hashes.Load(ctx, c.ServicePrincipalID+"/"+s.KeyID)
		}
		switch {
		case err != nil:
			return ClientSecret{}, false, err
		case !found:
			continue
		case len(h.SHA256) == sha256.Size:
			if subtle.ConstantTimeCompare(h.SHA256, sum[:]) == 1 {
				return s, true, nil
			}
		default:
			slow[i] = h.Argon2id
		}
	}
	for i, s := range c.Secrets {
		if slow[i] == "" {
			continue
		}
		if ok, err := d.slowVerify(ctx, "secret/"+s.KeyID, slow[i], text); err != nil || ok {
			return s, ok, err
		}
	}
	return ClientSecret{}, false, nil
}

// generateSecret returns a secret of Entra's shape: 40 characters, with a
// digit and "Q~" after the third, by which scanners of source code know one.
// 37 of them are random, more than 220 bits. The first is a letter or digit,
// so that no command line takes it for an option.
func generateSecret() string {
	const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return pick(alnum, 3) + pick("0123456789", 1) + "Q~" + pick(alnum+"._~-", 34)
}

// pick returns n random characters of the alphabet, all equally likely.
func pick(alphabet string, n int) string {
	out := make([]byte, 0, n)
	fair := 256 - 256%len(alphabet) // bytes from here on would favour the first characters
	for buf := make([]byte, 2*n); len(out) < n; {
		_, _ = rand.Read(buf) // never fails, see crypto/rand
		for _, b := range buf {
			if int(b) < fair && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}
