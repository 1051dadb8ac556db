package token

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/store"
)

// Options adjust [Keys]. The zero value suits a server.
type Options struct {
	Now        func() time.Time // clock; time.Now if nil
	ForceRS256 bool             // sign RS256 where ES256 is asked for
	Lifetime   time.Duration    // how long a key signs; 90 days if zero
	Overlap    time.Duration    // how long a key is published before it signs; 24 hours if zero; at most half of Lifetime
	Every      time.Duration    // how often Run looks what is due; a minute if zero
	Log        *slog.Logger     // told of new, retired and damaged keys; nobody is if nil
}

// Keys are our signing keys. Create with [NewKeys]; safe for concurrent use.
//
// For each purpose and algorithm there is a row of keys, each with the time
// from which it signs. The one that signs is the last whose time has come; all
// of the row are published and accepted. Several servers on one store share
// the rows: whatever changes them does so in one transaction that looks at
// the whole row.
type Keys struct {
	s     *store.Store
	table *store.Table[keyRecord]
	o     Options

	reading sync.Mutex                   // held while the table is read into memory
	memory  atomic.Pointer[keysInMemory] // what the table held at some generation
}

// keyRecord is a stored signing key, under Key(purpose, algorithm, kid).
type keyRecord struct {
	Purpose     Purpose                 `json:"purpose"`
	Algorithm   jose.SignatureAlgorithm `json:"algorithm"`
	KeyID       string                  `json:"keyId"`
	Private     []byte                  `json:"private"`               // PKCS #8
	Certificate []byte                  `json:"certificate,omitempty"` // DER, self-signed; clusters' keys have none
	Created     time.Time               `json:"created"`
	SignFrom    time.Time               `json:"signFrom"`
}

// keysInMemory is the table, parsed. It is never changed.
type keysInMemory struct {
	generation int64
	purposes   map[Purpose]*purposeKeys
}

// purposeKeys are the keys of one purpose.
type purposeKeys struct {
	rows map[jose.SignatureAlgorithm][]*signingKey // by SignFrom
	byID map[string]*signingKey
	jwks []PublicKey
	jose *jose.JSONWebKeySet
}

// signingKey is one key, ready to sign and verify.
type signingKey struct {
	id, table   string // kid, key in the table
	alg         jose.SignatureAlgorithm
	signFrom    time.Time
	private     crypto.Signer
	certificate []byte

	header, headerX5t string // encoded headers with their dot; the latter names the certificate
}

// NewKeys declares the table of signing keys. Call it before Store.Load.
func NewKeys(s *store.Store, o Options) *Keys {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lifetime <= 0 {
		o.Lifetime = 90 * 24 * time.Hour
	}
	if o.Overlap <= 0 {
		o.Overlap = 24 * time.Hour
	}
	o.Overlap = min(o.Overlap, o.Lifetime/2)
	if o.Every <= 0 {
		o.Every = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Keys{s: s, table: store.NewTable(s, "signingkey", store.TableOptions[keyRecord]{Mode: store.Sealed}), o: o}
}

// current returns the keys as they are now, parsed. The work is done once for
// each generation of the table.
func (k *Keys) current(ctx context.Context) (*keysInMemory, error) {
	generation, err := k.table.Generation(ctx)
	if err != nil {
		return nil, err
	}
	if m := k.memory.Load(); m != nil && m.generation == generation {
		return m, nil
	}
	k.reading.Lock()
	defer k.reading.Unlock()
	// Asked again before the table is read: what is read may be newer than the
	// generation that it is remembered under, and is then read once more, but
	// never older.
	if generation, err = k.table.Generation(ctx); err != nil {
		return nil, err
	}
	if m := k.memory.Load(); m != nil && m.generation == generation {
		return m, nil
	}
	entries, err := k.table.Scan(ctx, "", "", 0)
	if err != nil {
		return nil, err
	}
	m := &keysInMemory{generation: generation, purposes: map[Purpose]*purposeKeys{}}
	for _, e := range entries {
		key, purpose, err := parseKey(e)
		if err != nil {
			k.o.Log.Error("a signing key cannot be used", "key", e.Key, "error", err)
			continue
		}
		p := m.purposes[purpose]
		if p == nil {
			p = &purposeKeys{rows: map[jose.SignatureAlgorithm][]*signingKey{}, byID: map[string]*signingKey{}}
			m.purposes[purpose] = p
		}
		p.rows[key.alg] = append(p.rows[key.alg], key)
		p.byID[key.id] = key
	}
	for _, p := range m.purposes {
		for _, row := range p.rows {
			sortRow(row)
		}
		p.publish()
	}
	k.memory.Store(m)
	return m, nil
}

// sortRow puts a row in the order in which its keys come to sign.
func sortRow(row []*signingKey) {
	slices.SortFunc(row, func(a, b *signingKey) int {
		return cmp.Or(a.signFrom.Compare(b.signFrom), cmp.Compare(a.id, b.id))
	})
}

// signer returns the key of a row that signs now, or nil.
func signer(row []*signingKey, now time.Time) *signingKey {
	for i := len(row) - 1; i >= 0; i-- {
		if !row[i].signFrom.After(now) {
			return row[i]
		}
	}
	return nil
}

var errKeyRecord = errors.New("key and algorithm do not fit")

// parseKey makes a stored key usable.
func parseKey(e store.Entry[keyRecord]) (*signingKey, Purpose, error) {
	if e.Err != nil {
		return nil, "", e.Err
	}
	r := &e.Value
	private, err := x509.ParsePKCS8PrivateKey(r.Private)
	if err != nil {
		return nil, "", fmt.Errorf("parse signing key: %w", err)
	}
	key := &signingKey{id: r.KeyID, table: e.Key, alg: r.Algorithm, signFrom: r.SignFrom, certificate: r.Certificate}
	switch p := private.(type) {
	case *ecdsa.PrivateKey:
		if r.Algorithm != jose.ES256 || p.Curve != elliptic.P256() {
			return nil, "", errKeyRecord
		}
		key.private = p
	case *rsa.PrivateKey:
		if r.Algorithm != jose.RS256 || p.N.BitLen() < minRSABits {
			return nil, "", errKeyRecord
		}
		key.private = p
	default:
		return nil, "", errKeyRecord
	}
	head := `{"typ":"JWT","alg":"` + string(key.alg) + `",`
	kid := `"kid":"` + key.id + `"}` // base64url: nothing to escape
	key.header = base64.RawURLEncoding.EncodeToString([]byte(head+kid)) + "."
	key.headerX5t = key.header
	if key.alg == jose.RS256 && len(key.certificate) > 0 {
		key.headerX5t = base64.RawURLEncoding.EncodeToString([]byte(head+`"x5t":"`+thumbprint(key.certificate)+`",`+kid)) + "."
	}
	return key, r.Purpose, nil
}
