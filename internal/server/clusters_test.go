package server

import (
	"encoding/base64"
	"math/big"
	"testing"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server/issuer"
)

// strongKeys is a key set that may be pinned. Nobody has its private key: the
// modulus is only an odd number of the right size.
func strongKeys() map[string]any {
	n := new(big.Int).SetBit(big.NewInt(1), 2047, 1)
	return map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": "k", "n": base64.RawURLEncoding.EncodeToString(n.Bytes()), "e": "AQAB"}}}
}

// register makes a group and registers a cluster in it.
func register(t *testing.T, api *client.Client, name string, podkey map[string]any) error {
	t.Helper()
	group := "/subscriptions/" + api.Operator.SubscriptionID + "/resourceGroups/clusters"
	if err := api.Manage(t.Context(), "PUT", group+"?api-version=2021-04-01", map[string]any{"location": "westeurope"}, nil); err != nil {
		t.Fatal(err)
	}
	return api.Manage(t.Context(), "PUT", group+"/providers/Microsoft.ContainerService/managedClusters/"+name+"?api-version="+client.VersionClusters,
		map[string]any{"location": "westeurope", "properties": map[string]any{"podkey": podkey}}, nil)
}

func TestIssuersOfTheServerCannotBeRegistered(t *testing.T) {
	s, api := startServer(t, Config{})
	own := s.hosts.own
	for _, iss := range []string{
		issuer.URL(own, issuer.Local), own.Issuer + "/clusters/x/", own.IssuerV2(api.Operator.TenantID), own.Management + "/", own.VaultURL("v") + "/",
		"https://" + s.config.Domain + "/", "https://eu.login." + s.config.Domain + "/x",
		"https://sts.windows.net/" + api.Operator.TenantID + "/", "https://login.microsoftonline.com/" + api.Operator.TenantID + "/v2.0", "https://kv.vault.azure.net/",
	} {
		for _, podkey := range []map[string]any{
			{"issuer": iss, "keySource": "Fetched"}, {"issuer": iss, "keySource": "Pinned", "jwks": strongKeys()},
		} {
			if err := register(t, api, "c", podkey); !client.IsCode(err, "InvalidClusterRegistration") {
				t.Errorf("%s: %v", iss, err)
			}
		}
	}
	for i, iss := range []string{"https://10.0.0.1:6443/", "https://kubernetes.default.svc.cluster.local", "https://oidc.prod-aks.azure.com/x/"} {
		if err := register(t, api, "c"+string(rune('0'+i)), map[string]any{"issuer": iss, "keySource": "Pinned", "jwks": strongKeys()}); err != nil {
			t.Errorf("%s: %v", iss, err)
		}
	}
}

func TestAnotherTenantPinsNoKeys(t *testing.T) {
	_, api := startServer(t, Config{})
	op := api.Operator
	op.TenantID, op.SubscriptionID = uuid.NewString(), uuid.NewString()
	var made struct{ ClientID, ClientSecret, PrincipalID string }
	if err := api.Admin(t.Context(), "PUT", "tenants/"+op.TenantID, map[string]any{"subscriptionId": op.SubscriptionID, "displayName": "Other"}, &made); err != nil {
		t.Fatal(err)
	}
	op.ClientID, op.ClientSecret, op.ObjectID = made.ClientID, made.ClientSecret, made.PrincipalID
	other := api.As(op)
	const iss = "https://token.actions.githubusercontent.com"
	if err := register(t, other, "c", map[string]any{"issuer": iss, "keySource": "Pinned", "jwks": strongKeys()}); !client.IsCode(err, "AuthorizationFailed") {
		t.Errorf("err = %v", err)
	}
	if err := register(t, other, "c", map[string]any{"issuer": iss, "keySource": "Fetched"}); err != nil {
		t.Error(err)
	}
}
