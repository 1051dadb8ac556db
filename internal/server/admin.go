package server

import (
	"context"
	"encoding/pem"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

// adminVersion is the api-version of Podkey's own operations.
const adminVersion = "2026-11-21"

// tenantSecretLife is how long the client secret is good that opens a tenant
// to the operator.
const tenantSecretLife = time.Hour

// adminHandler answers one operation.
type adminHandler = func(ctx context.Context, r *http.Request, q *arm.Request) (any, error)

// grantAction is what nobody may do without who could not take any right
// anyway: Podkey's own operations hand out credentials and tokens, so that a
// wildcard role such as Contributor must not be enough for them.
const grantAction = "Microsoft.Authorization/roleAssignments/write"

// registerAdmin adds the operations that no Azure API has: what an operator
// does to the server itself. They lie under the management API, so that the
// one pipeline authenticates, authorises and audits them, at the root of the
// server's own tenant: principals of other tenants are refused however much
// they may do at the root of theirs.
func (s *Server) registerAdmin(home string) {
	route := func(name, method string, collection bool, action string, h adminHandler) {
		s.arm.Register(arm.ResourceType{
			Name: "Podkey.Admin/" + name, Versions: []string{adminVersion}, Hidden: true,
			Routes: []arm.Route{{
				Method: method, Collection: collection, Levels: arm.AtTenant, TenantID: home, Action: "Podkey.Admin/" + name + "/" + action,
				Handle: func(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
					if err := q.Authorize(r.Context(), grantAction, q.ID); err != nil {
						return err
					}
					out, err := h(r.Context(), r, q)
					if err != nil {
						return err
					}
					return web.WriteJSON(w, http.StatusOK, out)
				},
			}},
		})
	}
	route("tenants", http.MethodPut, false, "write", s.putTenant)
	route("applications", http.MethodPost, true, "write", s.putApplication)
	s.registerKeyAdmin(route)
}

// putTenant makes a tenant with a subscription, and hands out a short-lived
// secret of an application that owns it: the way in for a declaration.
func (s *Server) putTenant(ctx context.Context, r *http.Request, q *arm.Request) (any, error) {
	var in struct {
		DisplayName    string   `json:"displayName"`
		Domains        []string `json:"domains"`
		SubscriptionID string   `json:"subscriptionId"`
	}
	if err := web.DecodeJSON(r, "InvalidRequestContent", &in); err != nil {
		return nil, err
	}
	id, ok := directory.CanonicalID(q.ID.Name())
	sub, okSub := directory.CanonicalID(in.SubscriptionID)
	if !ok || !okSub {
		return nil, fault.BadRequest("InvalidRequestContent", "The tenant's name and subscriptionId must be GUIDs.")
	}
	name := in.DisplayName
	if name == "" {
		name = id
	}
	_, had, err := s.directory.Tenant(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.ensureTenant(ctx, id, name, in.Domains, sub); err != nil {
		return nil, err
	}
	// The ids are derived from the tenant's, so that a repetition finds them.
	derived := func(what string) string {
		return uuid.NewSHA1(uuid.NameSpaceURL, []byte("podkey:tenant:"+id+":"+what)).String()
	}
	app := directory.Application{ObjectID: derived("application"), AppID: derived("client"), TenantID: id, DisplayName: "Podkey operator"}
	if err := s.ensureApplication(ctx, app, derived("principal")); err != nil {
		return nil, err
	}
	if err := s.ensureOwner(ctx, "/subscriptions/"+sub, id, derived("principal"), directory.PrincipalService); err != nil {
		return nil, err
	}
	if err := s.dropSecrets(ctx, app.ObjectID, func(c directory.ClientSecret) bool { return s.now().After(c.End) }); err != nil {
		return nil, err
	}
	_, text, err := s.directory.AddSecret(ctx, app.ObjectID, directory.NewSecret{DisplayName: "declaration", End: s.now().Add(tenantSecretLife)})
	if err != nil {
		return nil, err
	}
	return map[string]any{"created": !had, "clientId": app.AppID, "clientSecret": text, "principalId": derived("principal")}, nil
}

// dropSecrets removes those of an application's secrets for which old is true.
func (s *Server) dropSecrets(ctx context.Context, objectID string, old func(directory.ClientSecret) bool) error {
	a, _, err := s.directory.Application(ctx, objectID)
	if err != nil {
		return err
	}
	for _, c := range a.Secrets {
		if old(c) {
			if _, err := s.directory.RemoveSecret(ctx, objectID, c.KeyID); err != nil {
				return err
			}
		}
	}
	return nil
}

// applicationIn is a declared application.
type applicationIn struct {
	TenantID             string   `json:"tenantId"`
	DisplayName          string   `json:"displayName"`
	AppID                string   `json:"appId"`
	IdentifierURIs       []string `json:"identifierUris"`
	TokenVersion         int      `json:"tokenVersion"`
	ClientSecret         string   `json:"clientSecret"`
	Certificates         []string `json:"certificates"` // PEM
	FederatedCredentials []struct {
		Name        string   `json:"name"`
		Issuer      string   `json:"issuer"`
		Subject     string   `json:"subject"`
		Audiences   []string `json:"audiences"`
		Description string   `json:"description"`
	} `json:"federatedCredentials"`
}

// putApplication makes an application be as declared. It is found again by
// its display name; its service principal's id is derived from its own.
func (s *Server) putApplication(ctx context.Context, r *http.Request, _ *arm.Request) (any, error) {
	var in applicationIn
	if err := web.DecodeJSON(r, "InvalidRequestContent", &in); err != nil {
		return nil, err
	}
	tenant, ok := directory.CanonicalID(in.TenantID)
	if !ok || strings.TrimSpace(in.DisplayName) == "" {
		return nil, fault.BadRequest("InvalidRequestContent", "tenantId must be a GUID and displayName must not be empty.")
	}
	key := uuid.NewSHA1(uuid.NameSpaceURL, []byte("podkey:application:"+tenant+":"+in.DisplayName)).String()
	principal := uuid.NewSHA1(uuid.NameSpaceURL, []byte("podkey:principal:"+key)).String()
	app, had, err := s.directory.Application(ctx, key)
	if err != nil {
		return nil, err
	}
	if !had {
		app = directory.Application{ObjectID: key, AppID: in.AppID, TenantID: tenant, DisplayName: in.DisplayName,
			IdentifierURIs: in.IdentifierURIs, TokenVersion: in.TokenVersion}
		if app, err = s.directory.CreateApplication(ctx, app); err != nil {
			return nil, err
		}
	}
	if err := s.ensureApplication(ctx, app, principal); err != nil {
		return nil, err
	}
	updated, err := s.applicationCredentials(ctx, app, &in)
	if err != nil {
		return nil, err
	}
	return map[string]any{"created": !had, "updated": updated && had, "appId": app.AppID, "objectId": app.ObjectID, "principalId": principal}, nil
}

// applicationCredentials adds the declared credentials that are missing.
func (s *Server) applicationCredentials(ctx context.Context, app directory.Application, in *applicationIn) (updated bool, err error) {
	if in.ClientSecret != "" {
		c, _, err := s.directory.Client(ctx, app.TenantID, app.AppID)
		if err != nil {
			return false, err
		}
		if known, ok, err := s.directory.VerifySecret(ctx, &c, in.ClientSecret); err != nil {
			return false, err
		} else if !ok || s.now().After(known.End) {
			if _, _, err := s.directory.AddSecret(ctx, app.ObjectID, directory.NewSecret{DisplayName: "declared", Text: in.ClientSecret}); err != nil {
				return false, err
			}
			updated = true
		}
	}
	for _, text := range in.Certificates {
		block, _ := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" {
			return updated, fault.BadRequest("InvalidRequestContent", "A certificate is not PEM.")
		}
		known := false
		x5t, _ := directory.Thumbprints(block.Bytes)
		for _, c := range app.Certificates {
			known = known || c.X5T == x5t
		}
		if !known {
			if _, err := s.directory.AddCertificate(ctx, app.ObjectID, "declared", block.Bytes); err != nil {
				return updated, err
			}
			updated = true
		}
	}
	for _, f := range in.FederatedCredentials {
		want := directory.FederatedCredential{Name: f.Name, Issuer: f.Issuer, Subject: f.Subject, Audiences: f.Audiences, Description: f.Description}
		have, ok, err := s.directory.Federated(ctx, app.ObjectID, f.Name)
		if err != nil {
			return updated, err
		}
		if ok && have.Issuer == want.Issuer && have.Subject == want.Subject && len(have.Audiences) == 1 && len(want.Audiences) == 1 && have.Audiences[0] == want.Audiences[0] {
			continue
		}
		if _, err := s.directory.PutFederated(ctx, app.ObjectID, want); err != nil {
			return updated, err
		}
		updated = true
	}
	return updated, nil
}
