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
	ExpiresIn   int64  `json:"expires_in"`
	ExtExpires  int64  `json:"ext_expires_in"`
	RefreshIn   int64  `json:"refresh_in,omitempty"`
	AccessToken string `json:"access_token"`
}

// answerV1 is the answer of the v1 endpoint, whose numbers are text.
type answerV1 struct {
	TokenType   string `json:"token_type"`
	ExpiresIn   string `json:"expires_in"`
	ExtExpires  string `json:"ext_expires_in"`
	RefreshIn   string `json:"refresh_in,omitempty"`
	ExpiresOn   string `json:"expires_on"`
	NotBefore   string `json:"not_before"`
	Resource    string `json:"resource"`
	AccessToken string `json:"access_token"`
}

// refreshFrom is the lifetime from which answers say when to refresh: at half
// of it.
const refreshFrom = 2 * time.Hour

// mint makes the token and the answer around it. The shape of the token is
// the resource's choice, not the endpoint's.
func (x *exchange) mint(res resource) (any, error) {
	cae := x.cae && res.own // for other resources nobody would tell the client
	life := x.lifetime(cae || x.client.Kind == directory.KindManagedIdentity)
	issued := x.now.Unix()
	names := x.call.Names
	c := &token.Access{
		Audience: res.audience, IssuedAt: issued, NotBefore: issued, Expiry: issued + int64(life/time.Second),
		IDType: "app", ObjectID: x.client.ServicePrincipalID, Subject: x.client.ServicePrincipalID, TenantID: x.realm.ID,
		UTI: uniqueID(), MIRID: x.client.ResourceID,
	}
	if res.version == 2 {
		c.Version, c.Issuer = "2.0", names.IssuerV2(x.realm.ID)
		c.Azp, c.AzpACR = x.client.AppID, x.proof.class
	} else {
		c.Version, c.Issuer = "1.0", names.IssuerV1(x.realm.ID)
		c.IDP = c.Issuer
		c.AppID, c.AppIDACR = x.client.AppID, x.proof.class
	}
	if cae {
		c.CC = []string{"cp1"}
	}
	alg := jose.RS256 // whoever else validates tokens expects Entra's algorithm
	if res.own {
		alg = jose.ES256 // a fiftieth of the cost, and only we validate it
	}
	raw, err := x.Keys.Sign(x.ctx, token.Tenant, alg, c)
	if err != nil {
		return nil, err
	}
	expiresIn, refreshIn := c.Expiry-issued, int64(0)
	if life > refreshFrom {
		refreshIn = expiresIn / 2
	}
	if x.version == 2 {
		return &answerV2{TokenType: "Bearer", ExpiresIn: expiresIn, ExtExpires: expiresIn, RefreshIn: refreshIn, AccessToken: raw}, nil
	}
	text := func(n int64) string { return strconv.FormatInt(n, 10) }
	a := &answerV1{
		TokenType: "Bearer", ExpiresIn: text(expiresIn), ExtExpires: text(expiresIn),
		ExpiresOn: text(c.Expiry), NotBefore: text(c.NotBefore), Resource: x.asked, AccessToken: raw,
	}
	if refreshIn > 0 {
		a.RefreshIn = text(refreshIn)
	}
	return a, nil
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
