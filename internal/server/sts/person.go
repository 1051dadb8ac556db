package sts

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/token"
)

// idToken is the claims of an id token, which tells a client who has signed
// in. No plane takes it for an access token: it has neither appid nor azp.
type idToken struct {
	Audience  string   `json:"aud"` // the client
	Issuer    string   `json:"iss"`
	IssuedAt  int64    `json:"iat"`
	NotBefore int64    `json:"nbf"`
	Expiry    int64    `json:"exp"`
	AMR       []string `json:"amr,omitempty"`
	AuthTime  int64    `json:"auth_time"`
	Name      string   `json:"name,omitempty"`
	Nonce     string   `json:"nonce,omitempty"`
	ObjectID  string   `json:"oid"`
	Preferred string   `json:"preferred_username,omitempty"` // version 2.0
	SessionID string   `json:"sid"`
	Subject   string   `json:"sub"`
	TenantID  string   `json:"tid"`
	Unique    string   `json:"unique_name,omitempty"` // version 1.0
	UPN       string   `json:"upn,omitempty"`         // version 1.0
	UTI       string   `json:"uti"`
	Version   string   `json:"ver"`
}

// claims fills in what an access token says of a person.
func (p *person) claims(c *token.Access) {
	c.IDType, c.ObjectID, c.Subject = "user", p.user.ObjectID, p.subject()
	c.Name, c.Scope, c.SessionID, c.AMR = p.user.DisplayName, delegated, p.grant.SignInID, p.grant.Methods
	if c.Version == token.Version2 {
		c.Preferred = p.user.UserPrincipalName
	} else {
		c.Unique, c.UPN = p.user.UserPrincipalName, p.user.UserPrincipalName
	}
}

// subject names a person to one client: two clients cannot tell by it that
// they have the same user.
func (p *person) subject() string {
	sum := sha256.Sum256([]byte(p.user.ObjectID + "/" + p.grant.ClientID))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// clientInfo is what MSAL keys its cache by.
func (p *person) clientInfo() string {
	b, _ := json.Marshal(map[string]string{"uid": p.user.ObjectID, "utid": p.user.TenantID}) // cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// mintForPerson adds what an answer about a person has besides: id token,
// client_info and, last of all since that uses up what was presented, the
// refresh token.
func (x *exchange) mintForPerson(m *minted, about userScope) error {
	p := x.person
	if x.form["client_info"] == "1" {
		m.ClientInfo = p.clientInfo()
	}
	if about.openid {
		c := &idToken{
			Audience: x.client.AppID, IssuedAt: m.access.IssuedAt, NotBefore: m.access.NotBefore, Expiry: m.access.Expiry,
			AMR: p.grant.Methods, AuthTime: p.grant.SignedIn.Unix(), Name: p.user.DisplayName, Nonce: p.grant.Nonce,
			ObjectID: p.user.ObjectID, SessionID: p.grant.SignInID, Subject: p.subject(), TenantID: x.realm.ID, UTI: uniqueID(),
		}
		if x.version == 2 {
			c.Version, c.Issuer, c.Preferred = token.Version2, x.call.Names.IssuerV2(x.realm.ID), p.user.UserPrincipalName
		} else {
			c.Version, c.Issuer = token.Version1, x.call.Names.IssuerV1(x.realm.ID)
			c.Unique, c.UPN = p.user.UserPrincipalName, p.user.UserPrincipalName
		}
		var err error
		if m.IDToken, err = x.Keys.Sign(x.ctx, token.Tenant, jose.RS256, c); err != nil {
			return err
		}
	}
	var err error
	m.RefreshToken, err = x.grant.take(x, about.offline)
	return err
}
