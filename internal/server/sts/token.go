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
}

// proof is how the client authenticated.
type proof struct {
	class string // appidacr: "1" for a secret, "2" for an assertion
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
	if x.version == 2 {
		if x.asked, err = parseScope(x.form["scope"]); err != nil {
			return nil, err
		}
	}
	res, err := x.resource(x.asked)
	if err != nil {
		return nil, err
	}
	answer, err := x.mint(res)
	if err != nil {
		return nil, err
	}
	err = x.Audit.Write(x.ctx, audit.Record{
		Plane: "login", Operation: operation, Object: echo(x.asked), Decision: audit.Allow,
		Principal: x.principal(), Via: x.proof.via,
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// operation is what audit lines call a token request.
const operation = "TokenIssue"

// credential is what a client presented to authenticate.
type credential struct {
	secret    string
	assertion string
}

// jwtBearer is the only kind of client assertion that there is.
const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// identify finds the client and picks up its credential, unverified.
func (x *exchange) identify(r *http.Request) (c credential, err error) {
	if x.realm.any() {
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
	var ok bool
	if x.client, ok, err = x.Directory.Client(x.ctx, x.realm.ID, x.clientID); err != nil {
		return c, err
	}
	switch {
	case !ok:
		return c, errClientUnknown(x.clientID, &x.realm.Tenant)
	case x.client.ServicePrincipalID == "":
		return c, errNoServicePrincipal(&x.client)
	case !x.client.Enabled:
		return c, errClientDisabled(&x.client)
	}
	return c, nil
}

// parameters checks that the request is one that can be served at all.
func (x *exchange) parameters() error {
	grant := x.form["grant_type"]
	switch {
	case grant == "":
		return errMissing("grant_type")
	case grant != "client_credentials":
		return errGrantUnsupported(grant)
	}
	if x.version == 1 {
		if x.asked = x.form["resource"]; x.asked == "" {
			return errMissing("resource")
		}
	} else {
		if x.form["resource"] != "" {
			return errResourceOnV2()
		}
		if x.form["scope"] == "" {
			return errMissing("scope")
		}
		x.asked = x.form["scope"]
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
	switch {
	case c.secret == "" && c.assertion == "":
		return proof{}, errNoCredential()
	case x.client.PublicClient:
		return proof{}, errPublicClient()
	case c.secret != "":
		return x.bySecret(c.secret)
	}
	return x.byAssertion(c.assertion)
}

// refused writes down a refusal before it is answered. Requests that name no
// client of a tenant decide about nobody: they get no audit line, which anyone
// could fill the disk with. Failures of our own pass through.
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
	x.Log.LogAttrs(x.ctx, slog.LevelInfo, "token refused: "+reason, attrs...)
	x.call.Logged()

	if x.client.AppID == "" {
		return err
	}
	auditErr := x.Audit.Write(x.ctx, audit.Record{
		Plane: "login", Operation: operation, Object: echo(x.asked), Decision: audit.Deny, Reason: reason,
		Principal: audit.Principal{AppID: echo(x.clientID), TenantID: x.realm.ID, Name: x.client.DisplayName},
	})
	if auditErr != nil {
		return errors.Join(auditErr, errors.New(reason))
	}
	return err
}

// principal is the client once it has proved itself.
func (x *exchange) principal() audit.Principal {
	return audit.Principal{
		ObjectID: x.client.ServicePrincipalID, AppID: x.client.AppID, TenantID: x.client.TenantID,
		Kind: audit.KindServicePrincipal, Name: x.client.DisplayName,
	}
}
