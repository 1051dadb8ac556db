package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/store"
)

const (
	rsaBits    = 2048 // of the keys we make: as Entra's
	minRSABits = 2048 // of any RSA key that we believe

	// retention is how long a key stays published after the next one began to
	// sign: its last token may have been made by a server whose clock is late,
	// and is accepted for the leeway after it has expired.
	retention = MaxLifetime + time.Hour
)

// Ensure makes the keys that are missing for the purposes: one ES256 (unless
// RS256 is forced) and one RS256 key for [Tenant], one RS256 key for a
// cluster. Without purposes it means Tenant. Run keeps rotating whatever keys
// there are.
func (k *Keys) Ensure(ctx context.Context, purposes ...Purpose) error {
	if len(purposes) == 0 {
		purposes = []Purpose{Tenant}
	}
	for _, p := range purposes {
		for _, alg := range k.algorithms(p) {
			if err := k.rotateRow(ctx, p, alg); err != nil {
				return fmt.Errorf("signing keys of %s: %w", p, err)
			}
		}
	}
	return nil
}

// algorithms are those of the keys that a purpose needs.
func (k *Keys) algorithms(p Purpose) []jose.SignatureAlgorithm {
	if p != Tenant || k.o.ForceRS256 {
		return []jose.SignatureAlgorithm{jose.RS256}
	}
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256}
}

// Run rotates the keys until ctx ends, and then returns nil. A failure is
// logged and tried again: there is time, as keys are made early.
func (k *Keys) Run(ctx context.Context) error {
	t := time.NewTicker(k.o.Every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := k.Rotate(ctx); err != nil && ctx.Err() == nil {
				k.o.Log.Error("signing keys cannot be rotated", "error", err)
			}
		}
	}
}

// Rotate does what is due now: it publishes the successors of keys whose time
// to sign is nearly over, and removes keys that no live token is signed with.
// Servers that do it at the same time do it once.
func (k *Keys) Rotate(ctx context.Context) error {
	m, err := k.current(ctx)
	if err != nil {
		return err
	}
	for purpose, p := range m.purposes {
		for alg := range p.rows {
			if err := k.rotateRow(ctx, purpose, alg); err != nil {
				return fmt.Errorf("signing keys of %s: %w", purpose, err)
			}
		}
	}
	return nil
}

// Replace puts new keys in the place of all there are, at once: no token that
// was signed until now is accepted any longer. It is for when a key may have
// become known to somebody.
func (k *Keys) Replace(ctx context.Context) error {
	m, err := k.current(ctx)
	if err != nil {
		return err
	}
	for purpose, p := range m.purposes {
		for alg := range p.rows {
			if err := k.replaceRow(ctx, purpose, alg); err != nil {
				return fmt.Errorf("signing keys of %s: %w", purpose, err)
			}
		}
	}
	return nil
}

func (k *Keys) replaceRow(ctx context.Context, purpose Purpose, alg jose.SignatureAlgorithm) error {
	fresh, err := newKey(purpose, alg, k.o.Now())
	if err != nil {
		return err
	}
	fresh.SignFrom = k.o.Now().Add(-Leeway) // at once, on servers whose clocks are late as well
	prefix := store.Key(string(purpose), string(alg)) + "/"
	err = k.s.Update(ctx, func(tx *store.Tx) error {
		entries, err := k.table.List(tx, prefix, "", 0)
		if err != nil {
			return err
		}
		for _, e := range entries {
			k.table.Delete(tx, e.Key)
		}
		return k.table.Put(tx, store.Key(string(purpose), string(alg), fresh.KeyID), *fresh)
	})
	if err == nil {
		k.o.Log.Warn("signing keys replaced", "purpose", purpose, "alg", alg, "kid", fresh.KeyID)
	}
	return err
}

// rotateRow does what is due in one row.
func (k *Keys) rotateRow(ctx context.Context, purpose Purpose, alg jose.SignatureAlgorithm) error {
	m, err := k.current(ctx)
	if err != nil {
		return err
	}
	if p := m.purposes[purpose]; p != nil {
		if due := k.due(p.rows[alg], purpose, alg); due.nothing() {
			return nil
		}
	}
	var (
		done  rotation
		fresh *keyRecord // kept when the transaction is run again: keys are dear
	)
	err = k.s.Update(ctx, func(tx *store.Tx) error {
		entries, err := k.table.List(tx, store.Key(string(purpose), string(alg))+"/", "", 0)
		if err != nil {
			return err
		}
		var row []*signingKey
		for _, e := range entries {
			// A damaged key is nobody's predecessor; current has named it.
			if key, _, err := parseKey(e); err == nil {
				row = append(row, key)
			}
		}
		sortRow(row)
		done = k.due(row, purpose, alg)
		for _, key := range done.remove {
			k.table.Delete(tx, key.table)
		}
		if !done.create {
			return nil
		}
		if fresh == nil {
			if fresh, err = newKey(purpose, alg, k.o.Now()); err != nil {
				return err
			}
		}
		fresh.SignFrom = done.signFrom
		return k.table.Put(tx, store.Key(string(purpose), string(alg), fresh.KeyID), *fresh)
	})
	if err != nil {
		return err
	}
	for _, key := range done.remove {
		k.o.Log.Info("signing key retired", "purpose", purpose, "alg", alg, "kid", key.id)
	}
	if done.create {
		k.o.Log.Info("signing key made", "purpose", purpose, "alg", alg, "kid", fresh.KeyID, "signsFrom", fresh.SignFrom)
	}
	return nil
}

// rotation is what is due in one row.
type rotation struct {
	create   bool
	signFrom time.Time // of the key to be created
	remove   []*signingKey
}

func (r *rotation) nothing() bool { return !r.create && len(r.remove) == 0 }

// due decides from a sorted row what is to be done with it now. It depends on
// nothing but the row and the clock, so that it may be asked again by any
// server at any time.
func (k *Keys) due(row []*signingKey, purpose Purpose, alg jose.SignatureAlgorithm) (r rotation) {
	now := k.o.Now()
	wanted := false
	for _, a := range k.algorithms(purpose) {
		wanted = wanted || a == alg
	}
	switch signs := signer(row, now); {
	case !wanted:
	case signs == nil:
		// None yet, or a clock that was set back: nobody can have waited. It
		// signs at once on servers whose clocks are late as well.
		r.create, r.signFrom = true, now.Add(-Leeway)
	case row[len(row)-1] == signs && !now.Before(signs.signFrom.Add(k.o.Lifetime-k.o.Overlap)):
		r.create, r.signFrom = true, later(signs.signFrom.Add(k.o.Lifetime), now.Add(k.o.Overlap))
	}
	for i := range len(row) - 1 {
		if now.After(row[i+1].signFrom.Add(retention)) {
			r.remove = append(r.remove, row[i])
		}
	}
	return r
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// newKey makes a key. SignFrom is left to the caller.
func newKey(purpose Purpose, alg jose.SignatureAlgorithm, now time.Time) (*keyRecord, error) {
	var private crypto.Signer
	var err error
	if alg == jose.RS256 {
		private, err = rsa.GenerateKey(rand.Reader, rsaBits)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode signing key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("encode signing key: %w", err)
	}
	// As kube-apiserver names its keys.
	sum := sha256.Sum256(public)
	r := &keyRecord{
		Purpose: purpose, Algorithm: alg, Private: der, Created: now.UTC(),
		KeyID: base64.RawURLEncoding.EncodeToString(sum[:]),
	}
	if purpose == Tenant {
		if r.Certificate, err = selfSigned(private, now); err != nil {
			return nil, err
		}
		if alg == jose.RS256 {
			r.KeyID = thumbprint(r.Certificate) // as Entra names its keys
		}
	}
	return r, nil
}

// selfSigned makes the certificate that a key set publishes beside the key,
// for validators that read only certificates. Nobody checks its chain.
func selfSigned(key crypto.Signer, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make certificate of signing key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Podkey token signing"},
		NotBefore:    now.Add(-Leeway),
		NotAfter:     now.AddDate(5, 0, 0), // Entra's: as long
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of signing key: %w", err)
	}
	return der, nil
}

// thumbprint is a certificate's x5t. SHA-1 is what the member is defined by;
// it names a key of ours and protects nothing.
func thumbprint(certificate []byte) string {
	sum := sha1.Sum(certificate)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
