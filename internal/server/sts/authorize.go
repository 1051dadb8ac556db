package sts

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/web"
)

// authorization is a request of a client, brought by the person's browser, to
// act as the person. Nothing of it is stored: the page's form leads back to
// the same address, and everything is checked again.
type authorization struct {
	realm  *realm
	client directory.Client

	redirectURI string // as presented
	to          target // the same
	mode        string
	state       string

	scope     string
	nonce     string
	challenge string
	prompt    string
	loginHint string
	maxAge    time.Duration // since the sign-in; negative if it does not matter
}

// Limits of what is kept or sent back, in bytes.
const (
	maxState = 4096
	maxNonce = 1024
)

var challengeForm = regexp.MustCompile(`\A[A-Za-z0-9_-]{43}\z`) // SHA-256 in base64url

// readAuthorization reads a request as far as it must be right before anything
// may be redirected anywhere: tenant, client and redirect URI.
func (s *service) readAuthorization(r *http.Request) (*authorization, form, error) {
	a := &authorization{}
	var err error
	if a.realm, err = s.realm(r); err != nil {
		return nil, nil, err
	}
	f, err := parseForm(r.URL.RawQuery)
	if err != nil {
		return nil, nil, err
	}
	if f["client_id"] == "" {
		return nil, nil, errMissing("client_id")
	}
	if a.client, err = s.findClient(r.Context(), a.realm, f["client_id"]); err != nil {
		return nil, nil, err
	}
	a.redirectURI, a.state, a.mode = f["redirect_uri"], f["state"], f["response_mode"]
	if a.redirectURI == "" {
		return nil, nil, errMissing("redirect_uri")
	}
	var ok bool
	if a.to, ok = targetOf(&a.client, a.redirectURI); !ok {
		return nil, nil, errRedirect(&a.client, a.redirectURI)
	}
	switch a.mode {
	case "":
		a.mode = modeQuery
	case modePost:
		if a.to.ownScheme {
			return nil, nil, badRequest(70007, "unsupported_response_mode", "'%s' is not a supported value of 'response_mode' for the redirect URI '%s'.", a.mode, echo(a.redirectURI))
		}
	case modeQuery, modeFragment:
	default:
		return nil, nil, badRequest(70007, "unsupported_response_mode", "'%s' is not a supported value of 'response_mode'.", echo(a.mode))
	}
	if len(a.state) > maxState {
		return nil, nil, errMalformed("The parameter 'state' is longer than %d bytes.", maxState)
	}
	return a, f, nil
}

// read reads the rest, whose mistakes the client is told by redirect.
func (a *authorization) read(f form, version int) error {
	if t := f["response_type"]; t == "" {
		return errMissing("response_type")
	} else if t != "code" {
		return badRequest(700054, unsupportedType, "response_type '%s' is not enabled for the application. Only 'code' is supported.", echo(t))
	}
	for _, name := range []string{"request", "request_uri", "registration"} {
		if f[name] != "" {
			return errMalformed("The parameter '%s' is not supported.", name)
		}
	}
	switch {
	case f["code_challenge"] == "":
		return badRequest(9002325, invalidRequest, "Proof Key for Code Exchange is required: the parameter 'code_challenge' is missing.")
	case f["code_challenge_method"] != "S256":
		return badRequest(501491, invalidRequest, "Invalid size or method of Code_Challenge parameter: 'code_challenge_method' must be S256.")
	case !challengeForm.MatchString(f["code_challenge"]):
		return badRequest(501491, invalidRequest, "Invalid size of Code_Challenge parameter.")
	}
	a.challenge = f["code_challenge"]
	if a.nonce = f["nonce"]; len(a.nonce) > maxNonce {
		return errMalformed("The parameter 'nonce' is longer than %d bytes.", maxNonce)
	}
	if a.scope = f["scope"]; version == 1 {
		if a.scope = v1Scope(f["resource"]); a.scope == "" {
			return errMissing("resource")
		}
	}
	if a.scope == "" {
		return errMissing("scope")
	}
	if len(a.scope) > maxState {
		return errMalformed("The parameter 'scope' is longer than %d bytes.", maxState)
	}
	if _, err := parseUserScope(a.scope); err != nil {
		return err
	}
	if _, err := understandsCAE(f["claims"]); err != nil {
		return err
	}
	switch a.prompt = f["prompt"]; a.prompt {
	case "", "none", "login", "consent", "select_account":
	default:
		return badRequest(90023, invalidRequest, "Unsupported 'prompt' value '%s'.", echo(a.prompt))
	}
	a.loginHint = f["login_hint"]
	a.maxAge = -1
	if text := f["max_age"]; text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return errMalformed("The parameter 'max_age' is not a number of seconds.")
		}
		a.maxAge = time.Duration(n) * time.Second
	}
	return nil
}

// authorize serves the authorization endpoint of version 1 or 2: the page on
// which a person signs in and agrees, and what follows from it.
//
// Somebody who is signed in already is asked all the same. Many clients are
// programs on the person's machine that anything there can pretend to be (RFC
// 8252 8.6), and any page of the web can send a browser here, whichever the
// client.
func (s *service) authorize(version int) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		a, f, err := s.readAuthorization(r)
		if err != nil {
			return err
		}
		if err := a.read(f, version); err != nil {
			return s.redirectError(w, r, a, err)
		}
		p, err := s.signedIn(r)
		if err != nil {
			return err
		}
		if p != nil && (!a.realm.any() && p.user.TenantID != a.realm.ID || a.maxAge >= 0 && s.now().Sub(p.grant.SignedIn) > a.maxAge) {
			p = nil
		}
		if r.Method == http.MethodPost {
			return s.authorizeForm(w, r, a, p)
		}
		if a.prompt == "none" {
			if p == nil {
				return s.redirectError(w, r, a, badRequest(50058, "login_required", "A silent sign-in request was sent but no user is signed in."))
			}
			return s.redirectError(w, r, a, badRequest(65001, "interaction_required", "The user must agree to this sign-in. Send an interactive authorization request."))
		}
		if p == nil || a.prompt == "login" {
			return s.askToSignIn(w, r, a, http.StatusOK, a.loginHint, "")
		}
		return s.askToContinue(w, r, a, p)
	}
}

// authorizeForm goes on with what a person chose on the page.
func (s *service) authorizeForm(w http.ResponseWriter, r *http.Request, a *authorization, p *person) error {
	f, err := s.readOwnForm(r)
	if err != nil {
		return err
	}
	switch f["action"] {
	case "cancel":
		return s.redirectError(w, r, a, badRequest(65004, "access_denied", "User declined to consent to access the app."))
	case "other":
		return s.askToSignIn(w, r, a, http.StatusOK, "", "")
	case "continue":
		if p == nil {
			return s.askToSignIn(w, r, a, http.StatusOK, a.loginHint, "You are not signed in any more. Sign in again.")
		}
		return s.giveCode(w, r, a, p)
	case "signin":
		p, err := s.signInByForm(w, r, a.realm, &a.client, f)
		if e, ok := errors.AsType[*Error](err); ok {
			return s.askAgain(w, e, func(status int, problem string) error {
				return s.askToSignIn(w, r, a, status, f["username"], problem)
			})
		}
		if err != nil {
			return err
		}
		return s.giveCode(w, r, a, p)
	}
	return errMalformed("The form has no action that is known.")
}

// askAgain shows the sign-in page again with what was wrong.
func (s *service) askAgain(w http.ResponseWriter, e *Error, show func(status int, problem string) error) error {
	switch e.Code {
	case wrongPassword:
		return show(http.StatusUnauthorized, "The user name or the password is wrong.")
	case 50053:
		w.Header().Set("Retry-After", strconv.Itoa(int(e.RetryAfter/time.Second)))
		return show(http.StatusTooManyRequests, fmt.Sprintf("There were too many tries with a wrong password. Try again in %s.", e.RetryAfter))
	}
	return e
}

// signInByForm signs a person in with the name and password of a form, and
// writes down how it went.
func (s *service) signInByForm(w http.ResponseWriter, r *http.Request, in *realm, c *directory.Client, f form) (*person, error) {
	if s.SignIn.DisablePasswords {
		return nil, errPasswordsOff()
	}
	call := web.CallOf(r.Context())
	u, stamp, err := s.checkPassword(r.Context(), call.RemoteAddr, in, strings.TrimSpace(f["username"]), f["password"])
	if err != nil {
		return nil, s.signInRefused(r, c, err)
	}
	p := &person{u, session.Grant{
		TenantID: u.TenantID, UserID: u.ObjectID, Stamp: stamp, Methods: []string{byPassword},
		SignedIn: s.now().UTC(), SignInID: uuid.NewString(),
	}}
	return p, s.welcome(w, r, p, c, byPassword)
}

// operationSignIn is what audit lines call a person's sign-in in a browser.
const operationSignIn = "SignIn"

// welcome makes the browser one in which the person has signed in, once that
// is written down.
func (s *service) welcome(w http.ResponseWriter, r *http.Request, p *person, c *directory.Client, via string) error {
	err := s.Audit.Write(r.Context(), audit.Record{
		Plane: "login", Operation: operationSignIn, Object: c.AppID, Decision: audit.Allow, Via: via + "/" + p.grant.SignInID,
		Principal: personal(&p.user, c.AppID),
	})
	if err != nil {
		return err
	}
	return s.signIn(w, r, p)
}

// signInRefused writes down a refusal on a page. Failures of our own pass
// through.
func (s *service) signInRefused(r *http.Request, c *directory.Client, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	call := web.CallOf(r.Context())
	reason := fmt.Sprintf("AADSTS%d", e.Code)
	if e.Detail != "" {
		reason += ": " + e.Detail
	}
	if e.Err != nil {
		reason += ": " + echo(e.Err.Error())
	}
	level := slog.LevelInfo
	if e.Quiet {
		level = slog.LevelDebug
	}
	s.Log.LogAttrs(r.Context(), level, "sign-in refused: "+reason, slog.String("request", call.ID),
		slog.String("remote", call.RemoteAddr), slog.String("client", c.AppID))
	call.Logged()
	if e.Quiet {
		return err
	}
	auditErr := s.Audit.Write(r.Context(), audit.Record{
		Plane: "login", Operation: operationSignIn, Object: c.AppID, Decision: audit.Deny, Reason: reason,
		Principal: audit.Principal{AppID: c.AppID, TenantID: c.TenantID, Name: c.DisplayName},
	})
	if auditErr != nil {
		return errors.Join(auditErr, errors.New(reason))
	}
	return err
}

// askToSignIn shows the sign-in page.
func (s *service) askToSignIn(w http.ResponseWriter, r *http.Request, a *authorization, status int, userName, problem string) error {
	return s.showSignIn(w, r, status, &page{
		Problem: problem, Client: a.client.DisplayName, Resource: agreedResource(r, a.scope), UserName: userName, Action: here(r), formTo: a.to.source,
	}, again(r))
}

// showSignIn fills in how people can sign in here. next is the address to
// come back to from an outside identity provider.
func (s *service) showSignIn(w http.ResponseWriter, r *http.Request, status int, p *page, next string) error {
	p.Title, p.Passwords, p.CSRF = "Sign in", !s.SignIn.DisablePasswords, s.csrf(w, r)
	if o := s.SignIn.OIDC; o != nil {
		p.Outside = &outside{Name: o.name(), URL: outsidePath + "?" + url.Values{"return": {next}}.Encode()}
		if !p.Passwords && p.Problem == "" && r.Method == http.MethodGet {
			http.Redirect(w, r, p.Outside.URL, http.StatusSeeOther)
			return nil
		}
	}
	return s.show(w, r, status, "signin.html", p)
}

// askToContinue shows who is signed in and what asks.
func (s *service) askToContinue(w http.ResponseWriter, r *http.Request, a *authorization, p *person) error {
	return s.show(w, r, http.StatusOK, "confirm.html", &page{
		Title: "Continue?", Client: a.client.DisplayName, Resource: agreedResource(r, a.scope), UserName: p.user.UserPrincipalName, DisplayName: p.user.DisplayName,
		Action: here(r), CSRF: s.csrf(w, r), formTo: a.to.source,
	})
}

// here is the address of this request, where its page's form goes.
func here(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return r.URL.EscapedPath()
	}
	return r.URL.EscapedPath() + "?" + r.URL.RawQuery
}

// again is the address of this request without what makes it ask for a new
// sign-in: where a person comes back to after one.
func again(r *http.Request) string {
	q := r.URL.Query()
	q.Del("prompt")
	q.Del("max_age")
	return r.URL.EscapedPath() + "?" + q.Encode()
}

// giveCode ends a request with an authorization code.
func (s *service) giveCode(w http.ResponseWriter, r *http.Request, a *authorization, p *person) error {
	g := p.grant
	g.ClientID, g.Scope, g.Nonce, g.Redirected, g.Confidential = a.client.AppID, a.scope, a.nonce, true, a.to.web
	code, err := s.Sessions.NewCode(r.Context(), session.Code{Grant: g, RedirectURI: a.redirectURI, Challenge: a.challenge})
	if err != nil {
		return err
	}
	return s.respond(w, r, a, []field{{"code", code}})
}

// redirectError tells the client what was wrong, at its redirect URI. Failures
// of our own are told to the person.
func (s *service) redirectError(w http.ResponseWriter, r *http.Request, a *authorization, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	call := web.CallOf(r.Context())
	call.Note("aadsts", e.Code)
	return s.respond(w, r, a, []field{
		{"error", e.OAuth},
		{"error_description", fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			e.Code, e.Text, call.ID, call.CorrelationID, s.now().UTC().Format("2006-01-02 15:04:05Z"))},
		{"error_uri", fmt.Sprintf("%s/error?code=%d", call.Names.Login, e.Code)},
	})
}

// respond brings an answer to the client by the person's browser.
func (s *service) respond(w http.ResponseWriter, r *http.Request, a *authorization, answer []field) error {
	if a.state != "" {
		answer = append(answer, field{"state", a.state})
	}
	if a.mode == modePost {
		return s.show(w, r, http.StatusOK, "post.html", &page{
			Title: "One moment", Action: a.redirectURI, Fields: answer, formTo: a.to.source, script: true,
		})
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Location", redirected(a.redirectURI, a.mode, answer))
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// logout ends the browser's sign-in. What programs were given before lives on:
// they are signed out by themselves. There is no redirect afterwards: the
// request does not say whose client it is, so no address can be compared.
func (s *service) logout(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.realm(r); err != nil {
		return err
	}
	p, err := s.signedIn(r)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost {
		if _, err := s.readOwnForm(r); err != nil {
			return err
		}
		text, _ := cookie(r, browserCookie)
		if err := s.Sessions.SignOut(r.Context(), text); err != nil {
			return err
		}
		dropCookie(w, browserCookie)
		p = nil
	}
	if p == nil {
		return s.show(w, r, http.StatusOK, "message.html", &page{Title: "Signed out", Lines: []string{"Nobody is signed in with this browser."}})
	}
	return s.show(w, r, http.StatusOK, "message.html", &page{
		Title: "Sign out?", Lines: []string{"You are signed in as " + p.user.UserPrincipalName + "."},
		Action: r.URL.EscapedPath(), CSRF: s.csrf(w, r), SignOut: true,
	})
}
