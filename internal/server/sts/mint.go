package sts

import (
	"crypto/rand"
	"encoding/base64"
	"math/big"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/token"
)

// answerV2 is the answer of the v2.0 endpoint.
type answerV2 struct {
	TokenType   string `json:"token_type"`
	Scope       string `json:"scope,omitempty"` // persons' tokens only: az asks again at once for a scope that is not repeated
	ExpiresIn   int64  `json:"expires_in"`
	ExtExpires  int64  `json:"ext_expires_in"`
	RefreshIn   int64  `json:"refresh_in,omitempty"`
	AccessToken string `json:"access_token"`
	personalAnswer
}

// personalAnswer is what an answer about a person has besides.
type personalAnswer struct {
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	ClientInfo   string `json:"client_info,omitempty"`
}

// answerV1 is the answer of the v1 endpoint, whose numbers are text.
type answerV1 struct {
	TokenType   string `json:"token_type"`
	ExpiresIn   string `json:"expires_in"`
	ExtExpires  string `json:"ext_expires_in"`
	RefreshIn   string `json:"refresh_in,omitempty"`
	Scope       string `json:"scope,omitempty"`
	ExpiresOn   string `json:"expires_on"`
	NotBefore   string `json:"not_before"`
	Resource    string `json:"resource"`
	AccessToken string `json:"access_token"`
	personalAnswer
}

// minted is what an answer is made of.
type minted struct {
	access *token.Access
	raw    string // the access token
	life   time.Duration
	personalAnswer
}

// refreshFrom is the lifetime from which answers say when to refresh: at half
// of it.
const refreshFrom = 2 * time.Hour

// mint makes the access token. Its shape is the resource's choice, not the
// endpoint's.
func (x *exchange) mint(res resource) (minted, error) {
	cae := x.cae && res.own // for other resources nobody would tell the client
	// A person's token does not live long, whatever the client understands: what
	// lives long is the refresh token, which can be revoked.
	life := x.lifetime(x.person == nil && (cae || x.client.Kind == directory.KindManagedIdentity))
	issued := x.now.Unix()
	names := x.call.Names
	c := &token.Access{
		Audience: res.audience, IssuedAt: issued, NotBefore: issued, Expiry: issued + int64(life/time.Second),
		TenantID: x.realm.ID, UTI: uniqueID(), MIRID: x.client.ResourceID,
	}
	if res.version == 2 {
		c.Version, c.Issuer = "2.0", names.IssuerV2(x.realm.ID)
		c.Azp, c.AzpACR = x.client.AppID, x.proof.class
	} else {
		c.Version, c.Issuer = "1.0", names.IssuerV1(x.realm.ID)
		c.IDP = c.Issuer
		c.AppID, c.AppIDACR = x.client.AppID, x.proof.class
	}
	if x.person == nil {
		c.IDType, c.ObjectID, c.Subject = "app", x.client.ServicePrincipalID, x.client.ServicePrincipalID
	} else {
		x.person.claims(c)
	}
	if cae {
		c.CC = []string{"cp1"}
	}
	alg := jose.RS256 // whoever else validates tokens expects Entra's algorithm
	if res.own {
		alg = jose.ES256 // a fiftieth of the cost, and only we validate it
	}
	raw, err := x.Keys.Sign(x.ctx, token.Tenant, alg, c)
	return minted{access: c, raw: raw, life: life}, err
}

// answer is the endpoint's answer around what was minted.
func (x *exchange) answer(m *minted) any {
	expiresIn, refreshIn := m.access.Expiry-m.access.IssuedAt, int64(0)
	if m.life > refreshFrom {
		refreshIn = expiresIn / 2
	}
	if x.version == 2 {
		return &answerV2{
			TokenType: "Bearer", Scope: x.scope, ExpiresIn: expiresIn, ExtExpires: expiresIn, RefreshIn: refreshIn,
			AccessToken: m.raw, personalAnswer: m.personalAnswer,
		}
	}
	text := func(n int64) string { return strconv.FormatInt(n, 10) }
	a := &answerV1{
		TokenType: "Bearer", ExpiresIn: text(expiresIn), ExtExpires: text(expiresIn), ExpiresOn: text(m.access.Expiry),
		NotBefore: text(m.access.NotBefore), Resource: x.asked, AccessToken: m.raw, personalAnswer: m.personalAnswer,
	}
	if refreshIn > 0 {
		a.RefreshIn = text(refreshIn)
	}
	if x.person != nil {
		a.Scope = delegated
	}
	return a
}

// lifetime is how long a token lives, whole seconds of at least one.
func (x *exchange) lifetime(long bool) time.Duration {
	var d time.Duration
	switch {
	case x.Lifetime != nil:
		d = x.Lifetime(long)
	case long:
		d = token.MaxLifetime
	default:
		// Spread, so that clients which started together do not come back together.
		n, _ := rand.Int(rand.Reader, big.NewInt(30*60+1)) // never fails, see crypto/rand
		d = time.Hour + time.Duration(n.Int64())*time.Second
	}
	return max(min(d, token.MaxLifetime).Truncate(time.Second), time.Second)
}

// uniqueID is a uti: 16 random bytes in base64url.
func uniqueID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return base64.RawURLEncoding.EncodeToString(b[:])
}
