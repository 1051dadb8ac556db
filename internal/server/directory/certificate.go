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

// AddCertificate gives an application a certificate (DER). Its key must be
// RSA of 2048 bits or more, which is what the clients sign with; its validity
// is that of the credential. Nothing else of it is looked at: it is trusted
// because it is registered, not because somebody signed it.
func (d *Directory) AddCertificate(ctx context.Context, objectID, displayName string, der []byte) (ClientCertificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return ClientCertificate{}, fault.Wrap(err, fault.Invalid, "KeyCredentialsInvalid", "The certificate cannot be read: it must be one X.509 certificate in DER.")
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < smallestRSA {
		return ClientCertificate{}, fault.BadRequest("KeyCredentialsInvalid", "The certificate must have an RSA key of at least %d bits.", smallestRSA)
	}
	c := ClientCertificate{
		KeyID: d.newID(), DisplayName: displayName, DER: cert.Raw, Subject: cert.Subject.String(),
		Start: cert.NotBefore.UTC(), End: cert.NotAfter.UTC(),
	}
	c.X5T, c.X5TS256 = Thumbprints(cert.Raw)
	_, err = d.editApplication(ctx, objectID, func(_ *store.Tx, a *Application) error {
		for _, old := range a.Certificates {
			if old.X5TS256 == c.X5TS256 {
				return fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "The application has this certificate already.")
			}
		}
		a.Certificates = append(a.Certificates, c)
		return nil
	})
	if err != nil {
		return ClientCertificate{}, err
	}
	return c, nil
}

// RemoveCertificate takes a certificate away.
func (d *Directory) RemoveCertificate(ctx context.Context, objectID, keyID string) (existed bool, err error) {
	_, err = d.editApplication(ctx, objectID, func(_ *store.Tx, a *Application) error {
		n := len(a.Certificates)
		a.Certificates = slices.DeleteFunc(a.Certificates, func(c ClientCertificate) bool { return strings.EqualFold(c.KeyID, keyID) })
		existed = len(a.Certificates) < n
		return nil
	})
	return existed, err
}

// Thumbprints returns a certificate's x5t and x5t#S256: SHA-1 and SHA-256 of
// the DER, in base64url without padding.
func Thumbprints(der []byte) (x5t, x5tS256 string) {
	short, long := sha1.Sum(der), sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(short[:]), base64.RawURLEncoding.EncodeToString(long[:])
}
