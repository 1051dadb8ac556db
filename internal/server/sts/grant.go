package sts

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
)

// userGrant is one way for a client to get a token that acts as a person. It
// fills in its own steps of the pipeline and cannot forget a shared one.
type userGrant struct {
	via   string   // for the audit line
	byURI bool     // whether the client must prove itself follows from the redirect URI of the sign-in
	needs []string // parameters that it cannot do without

	// find says who it is and what was agreed to, and uses nothing up.
	find func(*exchange) (*person, error)

	// take uses up what was presented and returns a refresh token, if one is
	// due. It is called when everything else is done, so that a request that is
	// refused for another reason costs the client nothing.
	take func(x *exchange, offline bool) (refresh string, err error)
}

// person is whom a token acts as.
type person struct {
	user  directory.User
	grant session.Grant
}

// The methods of authentication, as amr names them.
const (
	byPassword   = "pwd"
	byFederation = "fed"
)

// The grant types.
const (
	grantClient   = "client_credentials"
	grantPassword = "password"
	grantRefresh  = "refresh_token"
	grantCode     = "authorization_code"
	grantDevice   = "urn:ietf:params:oauth:grant-type:device_code"
	grantDeviceGo = "device_code" // MSAL for Go
)

// grantOf returns the way of a grant type; nil for those that are not about a
// person.
func grantOf(grantType string) *userGrant {
	switch grantType {
	case grantPassword:
		return &userGrant{
			via: "password", needs: []string{"username", "password"}, find: (*exchange).passwordOwner, take: (*exchange).startFamily,
		}
	case grantRefresh:
		return &userGrant{
			via: "refreshToken", byURI: true, needs: []string{"refresh_token"}, find: (*exchange).refreshOwner, take: (*exchange).rotate,
		}
	case grantCode:
		return &userGrant{
			via: "authorizationCode", byURI: true, needs: []string{"code", "redirect_uri", "code_verifier"},
			find: (*exchange).codeOwner, take: (*exchange).redeemCode,
		}
	case grantDevice, grantDeviceGo:
		return &userGrant{via: "deviceCode", find: (*exchange).deviceOwner, take: (*exchange).redeemDevice}
	}
	return nil
}

// authenticatePerson lets the grant say who the token is to act as. A client
// that people were sent back to at a web address proves itself besides, when
// it redeems the code and whenever it refreshes. All others are public: they
// have nothing to prove themselves with. What did not come by a redirect URI
// is for applications that are marked as public, also when it is refreshed
// after the mark was taken away.
func (x *exchange) authenticatePerson(c credential) (proof, error) {
	client := proof{class: "0"}
	switch {
	case !x.client.PublicClient && !(x.grant.byURI && x.client.Redirects.Any()):
		return proof{}, errNotPublic(&x.client)
	case c.none():
	case !x.grant.byURI || len(x.client.Redirects.Web) == 0:
		return proof{}, errPublicClient()
	default:
		var err error
		if client, err = x.byCredential(c); err != nil {
			return proof{}, err
		}
	}
	p, err := x.grant.find(x)
	if p != nil {
		x.person = p // also of a refusal, for the audit line
	}
	switch {
	case err != nil:
		return proof{}, err
	case !x.client.PublicClient && !p.grant.Redirected:
		return proof{}, errNotPublic(&x.client)
	case p.grant.Confidential && c.none():
		return proof{}, errNoCredential()
	case !p.grant.Confidential && !c.none():
		return proof{}, errPublicClient()
	}
	if x.realm.any() {
		if err := x.settle(p.user.TenantID); err != nil {
			return proof{}, err
		}
	} else if p.user.TenantID != x.realm.ID {
		return proof{}, errOtherTenant(p.user.UserPrincipalName, &x.realm.Tenant)
	}
	via := x.grant.via + "/" + p.grant.SignInID
	if client.via != "" {
		via += ", " + client.via
	}
	return proof{class: client.class, via: via}, nil
}

// settle makes the realm the person's own tenant.
func (x *exchange) settle(tenantID string) error {
	t, ok, err := x.Directory.Tenant(x.ctx, tenantID)
	if err != nil {
		return err
	}
	if !ok {
		return errUserGone()
	}
	x.realm = &realm{Tenant: t, segment: t.ID, adfs: x.realm.adfs}
	return nil
}

// scopeOfPerson reads the scope of a request that acts as a person: what the
// request asks for or, if it does not say, what the person agreed to.
func (x *exchange) scopeOfPerson() (userScope, error) {
	text := x.form["scope"]
	if x.version == 1 {
		text = v1Scope(x.form["resource"])
	}
	if text == "" {
		text = x.person.grant.Scope
	}
	u, err := parseUserScope(text)
	if err != nil {
		return u, err
	}
	if u.resource == "" {
		u.resource = x.call.Names.Graph // as in Entra: scopes about the person are Graph's
	}
	if err := x.agreed(u); err != nil {
		return u, err
	}
	x.scope = text
	return u, nil
}

// agreed checks that a request which presents what the person agreed to
// earlier asks for no more than that: the page named one resource. First-party
// clients are exempt, which every tenant trusts with every resource: az signs
// in for one and goes on to the others.
func (x *exchange) agreed(u userScope) error {
	if firstParty(x.client.AppID) != "" || x.form["grant_type"] == grantPassword {
		return nil
	}
	was, err := parseUserScope(x.person.grant.Scope)
	if err != nil {
		return err
	}
	if was.resource == "" {
		was.resource = x.call.Names.Graph
	}
	if !x.sameResource(u.resource, was.resource) || u.offline && !was.offline {
		return errNotAgreed(&x.client).because("agreed to %s", echo(x.person.grant.Scope))
	}
	return nil
}

// v1Scope is the scope that a request of version 1 stands for.
func v1Scope(resource string) string {
	if resource == "" {
		return ""
	}
	return resource + "/.default openid profile offline_access"
}

// passwordOwner is who has the name and password of the request.
func (x *exchange) passwordOwner() (*person, error) {
	if x.SignIn.DisablePasswords {
		return nil, errPasswordsOff()
	}
	u, stamp, err := x.service.checkPassword(x.ctx, x.call.RemoteAddr, x.realm, x.form["username"], x.form["password"])
	if err != nil {
		return nil, err
	}
	return &person{u, session.Grant{
		TenantID: u.TenantID, UserID: u.ObjectID, ClientID: x.client.AppID, Scope: x.form["scope"],
		Stamp: stamp, Methods: []string{byPassword}, SignedIn: x.now.UTC(), SignInID: uuid.NewString(),
	}}, nil
}

// startFamily begins the refresh tokens of a sign-in.
func (x *exchange) startFamily(offline bool) (string, error) {
	if !offline {
		return "", nil
	}
	x.person.grant.Scope = x.scope
	return x.Sessions.Start(x.ctx, x.person.grant)
}

// refreshOwner is whose refresh token the request has. It is good, at any
// tenant's endpoint, for the tenant of its owner: az keeps one for all.
func (x *exchange) refreshOwner() (*person, error) {
	g, err := x.Sessions.Refresh(x.ctx, x.form["refresh_token"])
	if err != nil {
		return known(g), errRefresh(err)
	}
	return x.ownerOf(g)
}

func (x *exchange) rotate(bool) (string, error) {
	next, err := x.Sessions.Rotate(x.ctx, x.form["refresh_token"])
	if err != nil {
		return "", errRefresh(err)
	}
	return next, nil
}

// codeOwner is who agreed to the authorization code of the request.
func (x *exchange) codeOwner() (*person, error) {
	c, err := x.Sessions.Code(x.ctx, x.form["code"])
	if err != nil {
		return known(c.Grant), errCode(err)
	}
	p, err := x.ownerOf(c.Grant)
	if err != nil {
		return p, err
	}
	if c.RedirectURI != x.form["redirect_uri"] {
		return p, errRedirectDiffers()
	}
	if !verifies(c.Challenge, x.form["code_verifier"]) {
		return p, errVerifier()
	}
	return p, nil
}

// verifies compares a PKCE verifier with its challenge (RFC 7636 4.6).
func verifies(challenge, verifier string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(challenge), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) == 1
}

func (x *exchange) redeemCode(offline bool) (string, error) {
	refresh, err := x.Sessions.RedeemCode(x.ctx, x.form["code"], offline)
	if err != nil {
		return "", errCode(err)
	}
	return refresh, nil
}

// deviceCode is the code of a request; MSAL for Python sends it twice.
func (x *exchange) deviceCode() string {
	if c := x.form["device_code"]; c != "" {
		return c
	}
	return x.form["code"]
}

// deviceOwner is who confirmed the device code of the request.
//
// One that was redeemed ends what it gave whichever client presents it, as an
// authorization code and a refresh token do: it has leaked, and a thief who
// must name a client names the right one, whose id is public.
func (x *exchange) deviceOwner() (*person, error) {
	code := x.deviceCode()
	if code == "" {
		return nil, errMissing("device_code")
	}
	d, g, err := x.Sessions.DeviceCode(x.ctx, code)
	switch {
	case errors.Is(err, session.ErrReused):
		return known(g), errDevice(err)
	case d.ClientID != "" && d.ClientID != x.client.AppID: // whatever its state: it is its client's
		return known(g), errOtherClient().because("issued to client %s", d.ClientID)
	case errors.Is(err, session.ErrExpired):
		return known(g), x.lapsed(code, &d)
	case err != nil:
		return known(g), errDevice(err)
	}
	return x.ownerOf(g)
}

// lapsed is the refusal of a device code that nobody redeemed in time. Once it
// has been written down it is quiet, however often the client asks.
func (x *exchange) lapsed(code string, d *session.Device) error {
	e := errDeviceExpired().because("asked for from %s", d.Remote)
	e.Quiet = d.Lapsed
	e.note = func() error { return x.Sessions.LapseDevice(x.ctx, code) }
	return e
}

func (x *exchange) redeemDevice(offline bool) (string, error) {
	refresh, err := x.Sessions.RedeemDevice(x.ctx, x.deviceCode(), offline)
	if err != nil {
		return "", errDevice(err)
	}
	return refresh, nil
}

// ownerOf is the person of a grant, if the grant is this client's and still
// good.
func (x *exchange) ownerOf(g session.Grant) (*person, error) {
	p := known(g)
	if g.ClientID != x.client.AppID {
		return p, errOtherClient().because("issued to client %s", g.ClientID)
	}
	u, err := x.service.holder(x.ctx, g.TenantID, g.UserID, g.Stamp)
	if err != nil {
		return p, err
	}
	p.user = u
	return p, nil
}

// known is what a grant says of its person, before it is known whether the
// person still exists. nil for an empty grant.
func known(g session.Grant) *person {
	if g.UserID == "" {
		return nil
	}
	return &person{directory.User{ObjectID: g.UserID, TenantID: g.TenantID}, g}
}

// holder is the user of something that was agreed to earlier: it must still
// exist, be enabled and have the password of that time.
func (s *service) holder(ctx context.Context, tenantID, userID, stamp string) (directory.User, error) {
	u, ok, err := s.Directory.User(ctx, tenantID, userID)
	switch {
	case err != nil:
		return directory.User{}, err
	case !ok:
		return directory.User{}, errUserGone()
	case !u.Enabled:
		return directory.User{}, errUserDisabled()
	}
	now, ok, err := s.Directory.PasswordStamp(ctx, userID)
	if err != nil {
		return directory.User{}, err
	}
	if !ok || subtle.ConstantTimeCompare([]byte(now), []byte(stamp)) != 1 {
		return directory.User{}, errRevoked().because("the password was changed after the sign-in")
	}
	return u, nil
}

// checkPassword finds the user whose name and password these are, and the
// stamp of the password. Without a tenant it is that of the name's domain.
//
// Whatever is wrong, the work and the answer are the same: a wrong tenant, an
// unknown name, a disabled user and a wrong password.
func (s *service) checkPassword(ctx context.Context, remote string, r *realm, name, password string) (directory.User, string, error) {
	tenantID := r.ID
	_, domain, named := strings.Cut(name, "@")
	if !named {
		name = "@" // an object id is not a name to sign in with
	} else if r.any() {
		t, _, err := s.Directory.Tenant(ctx, domain)
		if err != nil {
			return directory.User{}, "", err
		}
		tenantID = t.ID
	}
	right, undo, err := s.limits.guess(name, remote, s.now())
	if err != nil {
		return directory.User{}, "", err
	}
	t, err := s.tryPassword(ctx, tenantID, name, password)
	if err != nil {
		undo() // it was not looked at: the server is busy, say
		return directory.User{}, "", err
	}
	if !t.ok {
		// A name that does not exist is not written down: people type passwords
		// into the wrong field.
		e := errCredentials().because("there is no such user")
		if t.found {
			e.because("wrong password of user %s, or the user is disabled", t.user.UserPrincipalName)
		}
		return directory.User{}, "", e
	}
	right()
	return t.user, t.stamp, nil
}

// tried is what came of trying a password.
type tried struct {
	user  directory.User // that has the name
	found bool           // there is one
	stamp string         // of its password
	ok    bool           // the password is right
}

// tryPassword compares a password. With an error it has not been looked at.
func (s *service) tryPassword(ctx context.Context, tenantID, name, password string) (t tried, err error) {
	// The stamp first: if the password changes now, the old one's is of no use.
	if t.user, t.found, err = s.Directory.User(ctx, tenantID, name); err != nil {
		return t, err
	}
	if t.found {
		if t.stamp, _, err = s.Directory.PasswordStamp(ctx, t.user.ObjectID); err != nil {
			return t, err
		}
	}
	u, ok, err := s.Directory.VerifyPassword(ctx, tenantID, name, password)
	if err != nil || !ok {
		return t, err
	}
	t.user, t.ok = u, true
	return t, nil
}
