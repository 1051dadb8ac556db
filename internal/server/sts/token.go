package sts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

// exchange is one token request on its way through the pipeline.
type exchange struct {
	*service
	ctx     context.Context
	call    *web.Call
	now     time.Time
	version int // of the endpoint: 1 or 2

	realm    *realm
	form     form
	clientID string // as presented
	client   directory.Client
	asked    string // the resource, as presented
	cae      bool   // the client understands continuous access evaluation
	proof    proof

	grant  *userGrant // how a client comes to act as a person; nil if it asks for itself
	person *person    // whom the token acts as; nil likewise
	scope  string     // of a person's token, as the answer repeats it
}

// proof is how the client authenticated.
type proof struct {
	class string // appidacr: "0" for a public client, "1" for a secret, "2" for an assertion
	via   string // which credential, for the audit line
}

// token serves the token endpoint of version 1 or 2.
func (s *service) token(version int) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		x := &exchange{service: s, ctx: r.Context(), call: web.CallOf(r.Context()), now: s.now(), version: version}
		answer, err := x.run(r)
		if err != nil {
			return x.refused(err)
		}
		return web.WriteJSON(w, http.StatusOK, answer)
	}
}

// run is the pipeline.
func (x *exchange) run(r *http.Request) (any, error) {
	var err error
	if x.realm, err = x.service.realm(r); err != nil {
		return nil, err
	}
	if x.form, err = readForm(r); err != nil {
		return nil, err
	}
	x.grant = grantOf(x.form["grant_type"])
	credential, err := x.identify(r)
	if err != nil {
		return nil, err
	}
	if err := x.parameters(); err != nil {
		return nil, err
	}
	if x.proof, err = x.authenticate(credential); err != nil {
		return nil, err
	}
	var about userScope
	switch {
	case x.grant != nil:
		if about, err = x.scopeOfPerson(); err != nil {
			return nil, err
		}
		x.asked = about.resource
	case x.version == 2:
		if x.asked, err = parseScope(x.form["scope"]); err != nil {
			return nil, err
		}
	}
	res, err := x.resource(x.asked)
	if err != nil {
		return nil, err
	}
	m, err := x.mint(res)
	if err != nil {
		return nil, err
	}
	if x.grant != nil {
		if err := x.mintForPerson(&m, about); err != nil {
			return nil, err
		}
	}
	err = x.Audit.Write(x.ctx, audit.Record{
		Plane: "login", Operation: operation, Object: echo(x.asked), Decision: audit.Allow,
		Principal: x.principal(), Via: x.proof.via,
	})
	if err != nil {
		return nil, err
	}
	return x.answer(&m), nil
}

// operation is what audit lines call a token request.
const operation = "TokenIssue"

// credential is what a client presented to authenticate.
type credential struct {
	secret    string
	assertion string
}

func (c *credential) none() bool { return c.secret == "" && c.assertion == "" }

// jwtBearer is the only kind of client assertion that there is.
const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// identify finds the client and picks up its credential, unverified.
func (x *exchange) identify(r *http.Request) (c credential, err error) {
	if x.realm.any() && x.grant == nil {
		return c, errNoTenant()
	}
	basicID, basicSecret, viaHeader, err := basic(r)
	if err != nil {
		return c, err
	}
	x.clientID = x.form["client_id"]
	c = credential{secret: x.form["client_secret"], assertion: x.form["client_assertion"]}
	if viaHeader {
		if x.clientID != "" && !strings.EqualFold(x.clientID, basicID) {
			return c, errMalformed("The client ids of body and Authorization header differ.")
		}
		if c.secret != "" {
			return c, errMalformed("The request has more than one client credential.")
		}
		x.clientID, c.secret = basicID, basicSecret
	}
	if c.secret != "" && c.assertion != "" {
		return c, errMalformed("The request has more than one client credential.")
	}
	if x.clientID == "" {
		return c, errMissing("client_id")
	}
	x.client, err = x.service.findClient(x.ctx, x.realm, x.clientID)
	return c, err
}

// parameters checks that the request is one that can be served at all.
func (x *exchange) parameters() error {
	grant := x.form["grant_type"]
	switch {
	case grant == "":
		return errMissing("grant_type")
	case grant != grantClient && x.grant == nil:
		return errGrantUnsupported(grant)
	}
	// What was agreed to earlier has a resource already.
	mustName := grant == grantClient || grant == grantPassword
	if x.version == 1 {
		if x.asked = x.form["resource"]; x.asked == "" && mustName {
			return errMissing("resource")
		}
	} else {
		if x.form["resource"] != "" {
			return errResourceOnV2()
		}
		if x.asked = x.form["scope"]; x.asked == "" && mustName {
			return errMissing("scope")
		}
	}
	if x.grant != nil {
		for _, name := range x.grant.needs {
			if x.form[name] == "" {
				return errMissing(name)
			}
		}
	}
	if x.form["client_assertion"] != "" {
		switch t := x.form["client_assertion_type"]; {
		case t == "":
			return errMissing("client_assertion_type")
		case !strings.EqualFold(t, jwtBearer):
			return errMalformed("The parameter 'client_assertion_type' must be '%s'.", jwtBearer)
		}
	}
	var err error
	x.cae, err = understandsCAE(x.form["claims"])
	return err
}

// authenticate lets the client prove that it is who it says.
func (x *exchange) authenticate(c credential) (proof, error) {
	if x.grant != nil {
		return x.authenticatePerson(c)
	}
	switch {
	case c.none():
		return proof{}, errNoCredential()
	case x.client.PublicClient:
		return proof{}, errPublicClient()
	case x.client.ServicePrincipalID == "":
		return proof{}, errNoServicePrincipal(&x.client)
	}
	return x.byCredential(c)
}

// byCredential verifies what the client presented.
func (x *exchange) byCredential(c credential) (proof, error) {
	if c.secret != "" {
		return x.bySecret(c.secret)
	}
	return x.byAssertion(c.assertion)
}

// refused writes down a refusal before it is answered, if it decides about
// somebody. Failures of our own pass through.
func (x *exchange) refused(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	reason := fmt.Sprintf("AADSTS%d", e.Code)
	if e.Detail != "" {
		reason += ": " + e.Detail
	}
	attrs := []slog.Attr{
		slog.Int("aadsts", e.Code), slog.String("request", x.call.ID), slog.String("correlation", x.call.CorrelationID),
		slog.String("remote", x.call.RemoteAddr), slog.String("client", echo(x.clientID)), slog.String("resource", echo(x.asked)),
	}
	if x.realm != nil {
		attrs = append(attrs, slog.String("tenant", x.realm.segment))
	}
	if m := e.Mismatch; m != nil {
		attrs = append(attrs, slog.String("field", m.Field), slog.String("expected", m.Expected), slog.String("presented", echo(m.Found)),
			slog.String("nearest", m.Nearest.Name), slog.Any("differs", m.Differs))
		if m.Hint != "" {
			attrs = append(attrs, slog.String("hint", m.Hint))
		}
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("cause", e.Err.Error()))
	}
	level := slog.LevelInfo
	if e.Quiet {
		level = slog.LevelDebug
	}
	x.Log.LogAttrs(x.ctx, level, "token refused: "+reason, attrs...)
	x.call.Logged()

	if e.Quiet || !x.aboutSomebody(e) {
		return err
	}
	principal := audit.Principal{AppID: echo(x.clientID), TenantID: x.realm.ID, Name: x.client.DisplayName}
	if x.person != nil {
		principal = x.principal()
	}
	auditErr := x.Audit.Write(x.ctx, audit.Record{
		Plane: "login", Operation: operation, Object: echo(x.asked), Decision: audit.Deny, Reason: reason, Principal: principal,
	})
	if auditErr != nil {
		return errors.Join(auditErr, errors.New(reason))
	}
	if e.note != nil {
		if noteErr := e.note(); noteErr != nil {
			return errors.Join(noteErr, errors.New(reason))
		}
	}
	return err
}

// aboutSomebody reports whether a refusal decides about a client or a person.
// Others get no audit line: anyone could fill the disk with them. The ids of
// first-party clients are known to all, so naming one is naming nobody. A
// password that was looked at is written down also if there is no such user,
// so that the work is the same; how many are looked at is limited. So is the
// number of device codes, each of which expires once.
func (x *exchange) aboutSomebody(e *Error) bool {
	switch {
	case x.client.AppID == "":
		return false
	case firstParty(x.client.AppID) != "":
		return x.person != nil || e.Code == wrongPassword || e.Code == deviceExpired
	}
	return true
}

// principal is the client once it has proved itself, or the person that it
// acts as.
func (x *exchange) principal() audit.Principal {
	if x.person != nil {
		return personal(&x.person.user, x.client.AppID)
	}
	return audit.Principal{
		ObjectID: x.client.ServicePrincipalID, AppID: x.client.AppID, TenantID: x.client.TenantID,
		Kind: audit.KindServicePrincipal, Name: x.client.DisplayName,
	}
}

// personal is a person who acts through a client.
func personal(u *directory.User, clientID string) audit.Principal {
	return audit.Principal{
		ObjectID: u.ObjectID, AppID: clientID, TenantID: u.TenantID, Kind: audit.KindUser, Name: u.UserPrincipalName,
	}
}
