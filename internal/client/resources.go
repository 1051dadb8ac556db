package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"
)

// Versions of the management API that this package sends.
const (
	versionIdentity = "2023-01-31"
	versionAdmin    = "2026-11-21"
)

// Identity is a user-assigned managed identity, as the management API shows
// it.
type Identity struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		TenantID    string `json:"tenantId"`
		ClientID    string `json:"clientId"`
		PrincipalID string `json:"principalId"`
	} `json:"properties"`
}

// FederatedCredential is one credential of an identity.
type FederatedCredential struct {
	Name       string `json:"name"`
	Properties struct {
		Issuer    string   `json:"issuer"`
		Subject   string   `json:"subject"`
		Audiences []string `json:"audiences"`
	} `json:"properties"`
}

// listAll follows a listing's nextLink to its end.
func listAll[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var all []T
	for path != "" {
		var page struct {
			Value    []json.RawMessage `json:"value"`
			NextLink string            `json:"nextLink"`
		}
		if err := c.Manage(ctx, "GET", path, nil, &page); err != nil {
			return nil, err
		}
		for _, raw := range page.Value {
			var v T
			if err := json.Unmarshal(raw, &v); err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		path = strings.TrimPrefix(page.NextLink, c.Operator.Endpoints.Management)
	}
	return all, nil
}

// Identities lists the managed identities of the operator's subscription.
func (c *Client) Identities(ctx context.Context) ([]Identity, error) {
	return listAll[Identity](ctx, c, "/subscriptions/"+c.Operator.SubscriptionID+
		"/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version="+versionIdentity)
}

// FederatedCredentials lists the credentials of an identity.
func (c *Client) FederatedCredentials(ctx context.Context, identityID string) ([]FederatedCredential, error) {
	return listAll[FederatedCredential](ctx, c, identityID+"/federatedIdentityCredentials?api-version="+versionIdentity)
}

// IdentitiesTrusting returns the identities that have a federated credential
// for exactly this issuer and subject.
func (c *Client) IdentitiesTrusting(ctx context.Context, issuer, subject string) ([]Identity, error) {
	all, err := c.Identities(ctx)
	if err != nil {
		return nil, err
	}
	var found []Identity
	for _, id := range all {
		creds, err := c.FederatedCredentials(ctx, id.ID)
		if err != nil {
			return nil, err
		}
		for _, fc := range creds {
			if fc.Properties.Issuer == issuer && fc.Properties.Subject == subject {
				found = append(found, id)
				break
			}
		}
	}
	return found, nil
}

// ServiceAccountToken asks a cluster's issuer for a token of a service
// account, as the kubelet does by the TokenRequest API.
func (c *Client) ServiceAccountToken(ctx context.Context, cluster, namespace, account, audience string, lifetime time.Duration) (token string, expires time.Time, err error) {
	type spec struct {
		Audiences         []string `json:"audiences"`
		ExpirationSeconds int64    `json:"expirationSeconds"`
	}
	type status struct {
		Token               string    `json:"token"`
		ExpirationTimestamp time.Time `json:"expirationTimestamp"`
	}
	in := struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       spec   `json:"spec"`
	}{"authentication.k8s.io/v1", "TokenRequest", spec{[]string{audience}, int64(lifetime.Seconds())}}
	var out struct {
		Status status `json:"status"`
	}
	// The cluster's API lives beside its issuer document: the issuer URL of
	// another cluster differs only in its name.
	base, _ := strings.CutSuffix(c.Operator.Endpoints.Issuer, "/clusters/local/")
	target := base + "/clusters/" + url.PathEscape(cluster) + "/api/v1/namespaces/" + url.PathEscape(namespace) +
		"/serviceaccounts/" + url.PathEscape(account) + "/token"
	if err := c.call(ctx, "POST", target, c.Operator.Endpoints.Management, in, &out); err != nil {
		return "", time.Time{}, err
	}
	return out.Status.Token, out.Status.ExpirationTimestamp, nil
}

// Issuer is the issuer URL of a cluster of this server.
func (c *Client) Issuer(cluster string) string {
	return strings.TrimSuffix(c.Operator.Endpoints.Issuer, "local/") + cluster + "/"
}

// Admin calls an operation of Podkey's own under the management API.
func (c *Client) Admin(ctx context.Context, method, path string, in, out any) error {
	return c.Manage(ctx, method, "/providers/Podkey.Admin/"+path+"?api-version="+versionAdmin, in, out)
}
