// Package token owns tokens: the keys that sign ours, their rotation and
// publication, minting, verifying, and the keys of foreign issuers.
//
// It guarantees that
//
//   - a signing key is published well before it first signs, and for as long
//     as a token signed with it can live ([Keys]);
//   - exactly one text is accepted for each token of ours: base64 and JSON are
//     read strictly, signatures have one form, and the algorithm is the key's,
//     never the header's ([Verifier]);
//   - nothing in a token's header is ever fetched or used as a key;
//   - keys of foreign issuers come from where the operator put them, or over
//     https from addresses that are not ours to reach, under limits of size,
//     time and frequency ([Foreign]).
//
// Private keys leave the store only into this package's memory.
package token

import "time"

// Purpose separates sets of signing keys: a token signed for one is never
// accepted for another.
type Purpose string

// Tenant is the purpose of the token service's keys: access and id tokens.
const Tenant Purpose = "tenant"

// Cluster is the purpose of the keys of a cluster whose issuer we are.
func Cluster(name string) Purpose { return Purpose("cluster/" + name) }

const (
	// MaxLifetime is the longest that any token we sign may live. Keys stay
	// published for this long, and more, after they last signed.
	MaxLifetime = 24 * time.Hour

	// Leeway is how far the clock of whoever made a token may be off.
	Leeway = 5 * time.Minute
)
