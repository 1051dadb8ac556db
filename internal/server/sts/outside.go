package sts

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/uuid"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/web"
)

// Sign-in that is left to an outside identity provider, by OpenID Connect.
//
// The provider only says who somebody is. Users stay those of the directory:
// a person is the user whose name is the e-mail address that the provider has
// verified. Nothing else that a provider says names a user: a
// preferred_username may be anything that a person has typed there.

// SignIn says how people can sign in. The zero value is by password.
type SignIn struct {
	DisablePasswords bool          // neither on the page nor by the password grant
	OIDC             *OIDCProvider // nil if there is none
}

// OIDCProvider is an outside identity provider. Issuer, ClientID and Client
// are required.
type OIDCProvider struct {
	Issuer       string // https URL, as the provider's discovery document spells it
	ClientID     string
	ClientSecret string
	Name         string       // for the page; the issuer's host if empty
	Domains      []string     // lower-case domains of addresses that are accepted; all if empty
	Client       *http.Client // reaches the provider; must have a timeout

	provider atomic.Pointer[oidc.Provider] // once its document has been read
	reading  singleflight.Group
}

func (o *OIDCProvider) name() string {
	if o.Name != "" {
		return o.Name
	}
	u, err := url.Parse(o.Issuer)
	if err != nil {
		return o.Issuer
	}
	return u.Host
}

// The addresses of this kind of sign-in. The provider must have the second,
// under our own name, as the redirect URI of its client.
const (
	outsidePath     = "/signin/oidc"
	outsideCallback = "/signin/oidc/callback"
)

// maxOutside bounds what is read of one answer of the provider, in bytes.
const maxOutside = 1 << 20

// limitedBody cuts answers off that are too long, so that they cannot be
// parsed.
type limitedBody struct{ base http.RoundTripper }

func (l limitedBody) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := l.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxOutside), res.Body}
	return res, nil
}

// client is the HTTP client for the provider. It follows no redirect.
func (o *OIDCProvider) client() *http.Client {
	c := *o.Client
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.Transport = limitedBody{c.Transport}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// discover reads the provider's document, once. Those who come meanwhile share
// the answer, so that a provider that hangs holds all of them up as long as
// one. A failure is not remembered.
func (o *OIDCProvider) discover(ctx context.Context) (*oidc.Provider, error) {
	if p := o.provider.Load(); p != nil {
		return p, nil
	}
	_, err, _ := o.reading.Do("", func() (any, error) {
		// The provider keeps the context, for its keys: it must outlive the request.
		p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), o.client()), o.Issuer)
		if err != nil {
			return nil, fmt.Errorf("read the identity provider's document: %w", err)
		}
		o.provider.Store(p)
		return nil, nil
	})
	return o.provider.Load(), err
}

// config is the OAuth client. The redirect URI is always under our own name:
// that is the one that is registered at the provider.
func (s *service) outsideConfig(p *oidc.Provider) *oauth2.Config {
	o := s.SignIn.OIDC
	return &oauth2.Config{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, Endpoint: p.Endpoint(),
		RedirectURL: s.Own.Login + outsideCallback, Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}
}

func errOutside(cause error) *Error {
	e := refuse(http.StatusBadGateway, 90061, temporarily, "The identity provider could not be asked, or its answer could not be accepted. Try again, or tell whoever runs this server.")
	e.Err = cause
	return e
}

func errNoOutside() *Error {
	return refuse(http.StatusNotFound, 9002313, invalidRequest, "Invalid request. No identity provider is set up here.")
}

// errOutsideUser does not say which of the reasons it is: to a stranger it
// would tell who has an account.
func errOutsideUser() *Error {
	return refuse(http.StatusForbidden, 50020, "access_denied", "You have signed in at the identity provider, but there is no account here for you. Ask whoever runs this server to add one with your verified e-mail address as its name.")
}

// beginOutside sends the browser to the provider.
func (s *service) beginOutside(w http.ResponseWriter, r *http.Request) error {
	o := s.SignIn.OIDC
	if o == nil {
		return errNoOutside()
	}
	next := r.URL.Query().Get("return")
	if !localPage(next) {
		return errMalformed("The parameter 'return' is not a page of this service.")
	}
	call := web.CallOf(r.Context())
	if own := web.Host(s.Own.Login); call.Host != own && call.Host != strings.TrimSuffix(own, ":443") {
		// Cookies and the redirect URI are our own name's.
		http.Redirect(w, r, s.Own.Login+outsidePath+"?"+url.Values{"return": {next}}.Encode(), http.StatusSeeOther)
		return nil
	}
	if err := s.limits.outside.begin(call.RemoteAddr, s.now()); err != nil {
		return err
	}
	provider, err := o.discover(r.Context())
	if err != nil {
		return errOutside(err)
	}
	f := session.Flow{Binding: s.csrf(w, r), Nonce: uuid.NewString(), Verifier: oauth2.GenerateVerifier(), Return: next}
	state, err := s.Sessions.NewFlow(r.Context(), f)
	if err != nil {
		return err
	}
	http.Redirect(w, r, s.outsideConfig(provider).AuthCodeURL(state, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), http.StatusSeeOther)
	return nil
}

// localPage reports whether an address is a page that a person can come back
// to after a sign-in: a path of our own, never another host.
func localPage(address string) bool {
	if len(address) > 2*maxState || !strings.HasPrefix(address, "/") || strings.HasPrefix(address, "//") || strings.ContainsAny(address, "\\\r\n\t") {
		return false
	}
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "" && u.Host == "" && u.User == nil &&
		(strings.HasSuffix(u.Path, "/authorize") || u.Path == devicePath || u.Path == devicePathEntra)
}

// endOutside takes the browser back from the provider and signs the person in.
func (s *service) endOutside(w http.ResponseWriter, r *http.Request) error {
	o := s.SignIn.OIDC
	if o == nil {
		return errNoOutside()
	}
	q, err := parseForm(r.URL.RawQuery)
	if err != nil {
		return err // it cannot be said which sign-in it is about: nobody's
	}
	flow, err := s.Sessions.TakeFlow(r.Context(), q["state"])
	if errors.Is(err, session.ErrUnknown) {
		return errForeignForm().because("state: %v", err) // nobody's: no audit line
	}
	// A flow is taken once, and how many are begun is limited: from here on each
	// refusal is written down.
	client := &directory.Client{} // none yet: the page that follows asks for one
	if errors.Is(err, session.ErrExpired) {
		return s.signInRefused(r, client, errForeignForm().because("state: %v", err))
	}
	if err != nil {
		return err
	}
	p, err := s.outsideAnswer(r, &flow, q)
	if err != nil {
		return s.signInRefused(r, client, err)
	}
	if err := s.welcome(w, r, p, client, byFederation); err != nil {
		return err
	}
	http.Redirect(w, r, flow.Return, http.StatusSeeOther)
	return nil
}

// outsideAnswer is the person whom the provider's answer to a flow is about.
func (s *service) outsideAnswer(r *http.Request, flow *session.Flow, q form) (*person, error) {
	// Whoever began must be the one who comes back: else somebody could send a
	// person a link that signs the person in as somebody else.
	secret, ok := cookie(r, formCookie)
	if !ok || !hmac.Equal([]byte(csrfOf(secret)), []byte(flow.Binding)) {
		return nil, errForeignForm().because("the sign-in began in another browser")
	}
	if code := q["error"]; code != "" {
		return nil, refuse(http.StatusForbidden, 65004, "access_denied", "The identity provider refused: %s", echo(code)).
			because("the identity provider answered %s", echo(code))
	}
	claims, err := s.outsideClaims(r.Context(), flow, q["code"])
	if err != nil {
		return nil, errOutside(err)
	}
	return s.outsidePerson(r.Context(), claims)
}

// outsideClaims is what is read of the provider's id token.
type outsideClaims struct {
	Subject       string `json:"sub"`
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
}

// outsideClaims redeems the provider's code and verifies its id token.
func (s *service) outsideClaims(ctx context.Context, flow *session.Flow, code string) (c outsideClaims, err error) {
	o := s.SignIn.OIDC
	provider, err := o.discover(ctx)
	if err != nil {
		return c, err
	}
	ctx = oidc.ClientContext(ctx, o.client())
	answer, err := s.outsideConfig(provider).Exchange(ctx, code, oauth2.VerifierOption(flow.Verifier))
	if err != nil {
		if re, ok := errors.AsType[*oauth2.RetrieveError](err); ok { // its text has the answer's body
			return c, fmt.Errorf("redeem code: status %d, error %q", re.Response.StatusCode, echo(re.ErrorCode))
		}
		return c, fmt.Errorf("redeem code: %w", err)
	}
	raw, ok := answer.Extra("id_token").(string)
	if !ok {
		return c, errors.New("the answer has no id token")
	}
	verified, err := provider.Verifier(&oidc.Config{ClientID: o.ClientID, Now: s.now}).Verify(ctx, raw)
	if err != nil {
		return c, fmt.Errorf("verify id token: %w", err)
	}
	if !hmac.Equal([]byte(verified.Nonce), []byte(flow.Nonce)) {
		return c, errors.New("the id token has another nonce")
	}
	return c, verified.Claims(&c)
}

// outsidePerson finds the user whom the provider has vouched for.
func (s *service) outsidePerson(ctx context.Context, c outsideClaims) (*person, error) {
	refused := func(format string, args ...any) error { return errOutsideUser().because(format, args...) }
	if strings.ContainsFunc(c.Email, func(r rune) bool { return r > unicode.MaxASCII }) {
		// Folding would make a letter of another script one of ours: another's name.
		return nil, refused("the e-mail address %s has characters that are not ASCII", echo(c.Email))
	}
	email := strings.ToLower(c.Email)
	_, domain, ok := strings.Cut(email, "@")
	switch {
	case !ok || domain == "" || strings.Count(email, "@") != 1:
		return nil, refused("the id token has no e-mail address")
	case !c.EmailVerified:
		return nil, refused("the identity provider has not verified %s", echo(email))
	case len(s.SignIn.OIDC.Domains) > 0 && !slices.Contains(s.SignIn.OIDC.Domains, domain):
		return nil, refused("the domain of %s is not allowed", echo(email))
	}
	t, ok, err := s.Directory.Tenant(ctx, domain)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, refused("no tenant has the domain of %s", echo(email))
	}
	u, ok, err := s.Directory.User(ctx, t.ID, email)
	if err != nil {
		return nil, err
	}
	if !ok || !u.Enabled {
		return nil, refused("there is no user %s, or it is disabled", echo(email))
	}
	stamp, _, err := s.Directory.PasswordStamp(ctx, u.ObjectID)
	if err != nil {
		return nil, err
	}
	return &person{u, session.Grant{
		TenantID: u.TenantID, UserID: u.ObjectID, Stamp: stamp, Methods: []string{byFederation},
		SignedIn: s.now().UTC().Truncate(time.Second), SignInID: uuid.NewString(),
	}}, nil
}
