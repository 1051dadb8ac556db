package server

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/rbac"
)

// openRoutes are those of the management API that any authenticated
// principal may call: they tell of nobody, or of the caller alone.
var openRoutes = []string{"GET /subscriptions", "GET /tenants", "GET /providers"}

// TestEveryOperationHasItsPermission looks at all that is registered, by
// whatever package: a new route that anybody may call, or that a reader may
// change something by, fails here.
func TestEveryOperationHasItsPermission(t *testing.T) {
	s, _ := startServer(t, Config{})
	spaces := map[string]bool{}
	for _, p := range s.arm.Permissions() {
		ns, _, _ := strings.Cut(p.Type, "/")
		spaces[ns] = true
		if err := p.Check(); err != nil && !slices.Contains(openRoutes, p.Method+" "+p.Type) {
			t.Error(err)
		}
	}
	for _, ns := range []string{"", "Microsoft.Authorization", "Microsoft.KeyVault", "Microsoft.ManagedIdentity", "Podkey.Admin"} {
		if !spaces[ns] {
			t.Errorf("nothing of %q is registered", ns)
		}
	}
}

// TestReaderAndNobodyOnEveryOperation sends each registered operation as
// somebody with the role Reader in the subscription, and as somebody without
// a role: nothing but reading is allowed to the one, and nothing to the other.
func TestReaderAndNobodyOnEveryOperation(t *testing.T) {
	s, operator := startServer(t, Config{})
	reader, nobody := signedIn(t, s, operator, rbac.Reader), signedIn(t, s, operator, "")
	for _, p := range s.arm.Permissions() {
		if p.Action == "" {
			continue
		}
		path := operationPath(p, operator.Operator.SubscriptionID)
		refused := func(c *client.Client) bool {
			e, ok := errors.AsType[*client.APIError](c.Manage(t.Context(), p.Method, path, map[string]any{}, nil))
			return ok && e.Status == http.StatusForbidden && e.Code == "AuthorizationFailed"
		}
		if !refused(nobody) {
			t.Errorf("somebody without a role may %s %s", p.Method, path)
		}
		outside := !strings.HasPrefix(path, "/subscriptions/")
		if reads := strings.HasSuffix(p.Action, "/read") && !outside; refused(reader) == reads {
			t.Errorf("a reader's %s %s: allowed %v", p.Method, path, !reads)
		}
	}
}

// signedIn makes an application and returns a client that signs in as it,
// with a role in the operator's subscription.
func signedIn(t *testing.T, s *Server, operator *client.Client, role string) *client.Client {
	t.Helper()
	ctx, op := t.Context(), operator.Operator
	app, err := s.directory.CreateApplication(ctx, directory.Application{TenantID: op.TenantID, DisplayName: uuid.NewString()})
	if err != nil {
		t.Fatal(err)
	}
	sp, err := s.directory.CreateServicePrincipal(ctx, directory.ServicePrincipal{TenantID: op.TenantID, AppID: app.AppID})
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err := s.directory.AddSecret(ctx, app.ObjectID, directory.NewSecret{DisplayName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		_, _, err := s.rbac.PutAssignment(ctx, rbac.Assignment{
			Name: uuid.NewString(), TenantID: op.TenantID, Scope: "/subscriptions/" + op.SubscriptionID, RoleDefinitionID: role, PrincipalID: sp.ObjectID,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	op.ClientID, op.ClientSecret = app.AppID, secret
	return operator.As(op)
}

// operationPath is a path to an operation, at the narrowest level that it
// has. What it names need not exist: permission comes before existence.
func operationPath(p arm.Permission, subscription string) string {
	ns, types, _ := strings.Cut(p.Type, "/")
	path := ""
	if ns != "" {
		switch {
		case p.Levels&arm.AtGroup != 0:
			path = "/subscriptions/" + subscription + "/resourceGroups/none"
		case p.Levels&arm.AtSubscription != 0:
			path = "/subscriptions/" + subscription
		}
		path += "/providers/" + ns
	}
	segs := strings.Split(types, "/")
	for i, seg := range segs {
		path += "/" + seg
		switch {
		case i == len(segs)-1 && p.Collection:
		case seg == "subscriptions":
			path += "/" + subscription
		default:
			path += "/none"
		}
	}
	return path + "?api-version=" + p.Version
}
