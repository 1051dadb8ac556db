package directory

import (
	"context"
	"crypto/rsa"
	"crypto/sha1" // x5t is defined as SHA-1; it names a certificate and protects nothing
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// ClientCertificate is a certificate whose key signs an application's client
// assertions.
type ClientCertificate struct {
	KeyID       string    `json:"keyId"` // GUID
	DisplayName string    `json:"displayName,omitempty"`
	DER         []byte    `json:"der"`
	X5T         string    `json:"x5t"`     // SHA-1 of DER, base64url without padding
	X5TS256     string    `json:"x5tS256"` // SHA-256 of DER, base64url without padding
	Subject     string    `json:"subject"` // for people
	Start       time.Time `json:"startDateTime"`
	End         time.Time `json:"endDateTime"`
}

// smallestRSA is the smallest RSA key of a client, in bits.
const smallestRSA = 2048

// NewCertificate asks for a certificate.
type NewCertificate struct {
	DisplayName string
	KeyID       string    // GUID; chosen if empty
	DER         []byte    // empty to keep the one that has the key id, see SetCertificates
	Start, End  time.Time // validity as a credential, within that of the certificate, which zero stands for
}

// credential is the certificate as it is stored. Its key must be RSA of 2048
// bits or more, which is what the clients sign with. Nothing else of it is
// looked at: it is trusted because it is registered, not because somebody
// signed it.
func (n *NewCertificate) credential(d *Directory) (ClientCertificate, error) {
	bad := func(cause error, format string, args ...any) (ClientCertificate, error) {
		return ClientCertificate{}, fault.Wrap(cause, fault.Invalid, "KeyCredentialsInvalid", format, args...)
	}
	cert, err := x509.ParseCertificate(n.DER)
	if err != nil {
		return bad(err, "The certificate cannot be read: it must be one X.509 certificate in DER.")
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < smallestRSA {
		return bad(nil, "The certificate must have an RSA key of at least %d bits.", smallestRSA)
	}
	c := ClientCertificate{
		DisplayName: n.DisplayName, DER: cert.Raw, Subject: cert.Subject.String(),
		Start: cert.NotBefore.UTC(), End: cert.NotAfter.UTC(),
	}
	if c.KeyID, err = d.giveID("key id", n.KeyID); err != nil {
		return ClientCertificate{}, err
	}
	if !n.Start.IsZero() {
		c.Start = n.Start.UTC()
	}
	if !n.End.IsZero() {
		c.End = n.End.UTC()
	}
	if c.Start.Before(cert.NotBefore) || c.End.After(cert.NotAfter) || !c.End.After(c.Start) {
		return bad(nil, "The validity of the key credential must lie within that of its certificate.")
	}
	c.X5T, c.X5TS256 = Thumbprints(cert.Raw)
	return c, checkText("name", n.DisplayName, maxName)
}

// certificates makes the list that is asked for out of the one that there is:
// an entry without DER keeps the certificate of its key id.
func (d *Directory) certificates(had []ClientCertificate, asked []NewCertificate) ([]ClientCertificate, error) {
	var out []ClientCertificate
	if len(asked) > maxEntries {
		return nil, fault.BadRequest("KeyCredentialsInvalid", "There are more than %d certificates.", maxEntries)
	}
	for _, n := range asked {
		var c ClientCertificate
		kept := slices.IndexFunc(had, func(c ClientCertificate) bool { return strings.EqualFold(c.KeyID, n.KeyID) })
		switch {
		case len(n.DER) > 0:
			var err error
			if c, err = n.credential(d); err != nil {
				return nil, err
			}
			if kept >= 0 && had[kept].X5TS256 != c.X5TS256 {
				return nil, fault.BadRequest("KeyCredentialsInvalid", "The certificate of the key id '%s' cannot be replaced by another one.", c.KeyID)
			}
		case kept >= 0:
			c = had[kept]
		default:
			return nil, fault.BadRequest("KeyCredentialsInvalid", "The key credential with the key id '%s' has no key, and none is there to be kept.", clip(n.KeyID))
		}
		for _, o := range out {
			if o.X5TS256 == c.X5TS256 || o.KeyID == c.KeyID {
				return nil, fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "A certificate or key id is listed twice.")
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// SetCertificates makes the certificates of an application, or of the service
// principal of one, be those that are listed: an entry without DER keeps the
// one that has its key id, and what is not listed goes.
func (d *Directory) SetCertificates(ctx context.Context, objectID string, asked []NewCertificate) error {
	return d.editCredentials(ctx, objectID, func(_ *store.Tx, c credentials) (err error) {
		*c.certificates, err = d.certificates(*c.certificates, asked)
		return err
	})
}

// AddCertificate gives an application a certificate (DER), whose validity is
// that of the credential.
func (d *Directory) AddCertificate(ctx context.Context, objectID, displayName string, der []byte) (ClientCertificate, error) {
	n := NewCertificate{DisplayName: displayName, DER: der}
	c, err := n.credential(d)
	if err != nil {
		return ClientCertificate{}, err
	}
	_, err = d.editApplication(ctx, objectID, func(_ *store.Tx, a *Application) error {
		for _, old := range a.Certificates {
			if old.X5TS256 == c.X5TS256 {
				return fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "The application has this certificate already.")
			}
		}
		if len(a.Certificates) >= maxEntries {
			return fault.BadRequest("KeyCredentialsInvalid", "There are %d certificates already.", maxEntries)
		}
		a.Certificates = append(a.Certificates, c)
		return nil
	})
	if err != nil {
		return ClientCertificate{}, err
	}
	return c, nil
}

// Thumbprints returns a certificate's x5t and x5t#S256: SHA-1 and SHA-256 of
// the DER, in base64url without padding.
func Thumbprints(der []byte) (x5t, x5tS256 string) {
	short, long := sha1.Sum(der), sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(short[:]), base64.RawURLEncoding.EncodeToString(long[:])
}
