package server

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

// audience is the names of one resource: what a token's aud may be.
type audience struct {
	names    map[string]bool
	expected string // what a refusal shows
}

func newAudience(expected string, names ...string) audience {
	a := audience{names: map[string]bool{expected: true}, expected: expected}
	for _, n := range names {
		a.names[n] = true
	}
	return a
}

// vaultAudience is the vault's resource: Azure's with and without slash, its
// application id, and our own names'.
func vaultAudience(own, azure *web.Names) audience {
	return newAudience(azure.VaultResource(), azure.VaultResource()+"/", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
		own.VaultResource(), own.VaultResource()+"/")
}

// managementAudience is the management API's resource, old and new.
func managementAudience(own, azure *web.Names) audience {
	const classic = "https://management.core.windows.net"
	return newAudience(azure.Management+"/", azure.Management, classic, classic+"/", own.Management, own.Management+"/",
		"797f4846-ba00-4fd7-ba43-dac1f8f63013")
}

// graphAudience is the directory API's resource.
func graphAudience(own, azure *web.Names) audience {
	return newAudience(azure.Graph, azure.Graph+"/", own.Graph, own.Graph+"/", "00000003-0000-0000-c000-000000000000")
}

// authenticator verifies access tokens for one resource. The principal must
// still exist: a deleted identity's token opens nothing, however long it
// would have lived.
func (s *Server) authenticator(a audience) web.Authenticator {
	want := token.Expect{
		Audience:     func(aud string) bool { return a.names[aud] },
		AudienceName: a.expected,
		Issuer: func(iss, tid string) bool {
			h := s.hosts
			return tid != "" && (iss == h.azure.IssuerV1(tid) || iss == h.own.IssuerV1(tid) || iss == h.own.IssuerV2(tid) || iss == h.azure.IssuerV2(tid))
		},
		IssuerName: "https://sts.windows.net/<tenant>/",
	}
	return func(ctx context.Context, bearer string) (audit.Principal, error) {
		t, err := s.verifier.Verify(ctx, bearer, want)
		if err != nil {
			if ve, ok := errors.AsType[*token.VerifyError](err); ok {
				return audit.Principal{}, &web.AuthError{Reason: web.AuthReason(ve.Reason), Expected: ve.Expected, Found: ve.Found}
			}
			return audit.Principal{}, err
		}
		p, ok, err := s.directory.Principal(ctx, t.ObjectID)
		if err != nil {
			return audit.Principal{}, err
		}
		if !ok || p.TenantID != t.TenantID || !p.Enabled {
			return audit.Principal{}, &web.AuthError{Reason: web.AuthGone, Found: t.ObjectID}
		}
		return audit.Principal{
			ObjectID: t.ObjectID, AppID: t.Client(), TenantID: t.TenantID, Issuer: t.Issuer,
			Kind: p.Kind, Name: p.DisplayName, Groups: t.Groups,
		}, nil
	}
}

// authorizeIssuer decides who may have tokens of a cluster's service accounts
// made: whoever may do so at the root of the server's own tenant and may also
// give roles there, like the operator, who is Owner. Such a token can become
// any identity that trusts the cluster.
func (s *Server) authorizeIssuer(ctx context.Context, p audit.Principal, action, object string) error {
	home, err := s.homeTenant(ctx)
	if err != nil {
		return err
	}
	for _, a := range []string{action, grantAction} {
		if _, err := s.rbac.Authorize(ctx, rbac.Request{
			Principal: p, Plane: "issuer", Operation: "ServiceAccountTokenCreate", Action: a, Object: object, TenantID: home,
		}); err != nil {
			return err
		}
	}
	return nil
}

// homeTenant is the tenant of the first start: the one whose operator this
// server has.
func (s *Server) homeTenant(ctx context.Context) (string, error) {
	set, ok, err := s.settings.Load(ctx, settingsKey)
	if err == nil && !ok {
		err = errors.New("the server has no settings yet")
	}
	return set.TenantID, err
}

// hostOf drops the port of a domain.
func hostOf(domain string) string {
	if host, _, err := net.SplitHostPort(domain); err == nil {
		return host
	}
	return strings.TrimSuffix(domain, ".")
}

// etcdDir is the directory of the embedded store.
func etcdDir(data string) string { return filepath.Join(data, "etcd") }
