package test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/podkeytest"
)

// shop is the usual declaration: one workload that may read one vault.
const shop = `
identities:
  - name: shop
    resourceGroup: shop
    federatedCredentials:
      - {name: web, namespace: shop, serviceAccount: web}
vaults:
  - name: shop-vault
    resourceGroup: shop
    retentionDays: 7
    access:  [{identity: shop, role: Key Vault Secrets User}]
    secrets: [{name: db-password, value: hunter2, contentType: text/plain, tags: {team: web}}]
`

func options(p *podkeytest.Podkey) policy.ClientOptions {
	return policy.ClientOptions{Transport: p.Client, Retry: policy.RetryOptions{MaxRetries: -1}}
}

// operator signs in as the operator.
func operator(t testing.TB, p *podkeytest.Podkey) azcore.TokenCredential {
	t.Helper()
	c, err := azidentity.NewClientSecretCredential(p.TenantID, p.ClientID, p.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: options(p)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// workload signs in as the declared identity, with a token file as in a pod.
func workload(t testing.TB, p *podkeytest.Podkey, identity, namespace, account string) azcore.TokenCredential {
	t.Helper()
	file := filepath.Join(t.TempDir(), "azure-identity-token")
	if err := os.WriteFile(file, []byte(p.ServiceAccountToken(namespace, account)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions: options(p), ClientID: p.Identity(identity).ClientID, TenantID: p.TenantID, TokenFilePath: file,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func secrets(t testing.TB, p *podkeytest.Podkey, vault string, cred azcore.TokenCredential) *azsecrets.Client {
	t.Helper()
	c, err := azsecrets.NewClient(p.VaultURL(vault), cred, &azsecrets.ClientOptions{ClientOptions: options(p)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refusal returns the HTTP status and error code of an SDK's error.
func refusal(err error) (int, string) {
	var re *azcore.ResponseError
	if errors.As(err, &re) {
		return re.StatusCode, re.ErrorCode
	}
	return 0, ""
}

func TestWorkloadReadsItsSecret(t *testing.T) {
	p := podkeytest.Start(t, podkeytest.Options{Declare: shop})
	c := secrets(t, p, "shop-vault", workload(t, p, "shop", "shop", "web"))
	got, err := c.GetSecret(t.Context(), "db-password", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if *got.Value != "hunter2" || *got.ContentType != "text/plain" || *got.Tags["team"] != "web" {
		t.Errorf("got %+v", got)
	}
	if want := p.VaultURL("shop-vault") + "/secrets/db-password/"; !strings.HasPrefix(string(*got.ID), want) {
		t.Errorf("id = %s, want %s...", *got.ID, want)
	}
	// The role allows reading only.
	_, err = c.SetSecret(t.Context(), "db-password", azsecrets.SetSecretParameters{Value: to.Ptr("x")}, nil)
	if status, code := refusal(err); status != 403 || code != "Forbidden" {
		t.Errorf("set: %d %s, want 403 Forbidden", status, code)
	}
}

func TestSecretLifeThroughTheSDK(t *testing.T) {
	p := podkeytest.Start(t, podkeytest.Options{Declare: shop + `
roleAssignments:
  - {identity: shop, role: Key Vault Administrator}
`})
	ctx := t.Context()
	c := secrets(t, p, "shop-vault", workload(t, p, "shop", "shop", "web"))

	var versions []string
	for i := range 3 {
		s, err := c.SetSecret(ctx, "life", azsecrets.SetSecretParameters{
			Value: to.Ptr(fmt.Sprint("v", i)), Tags: map[string]*string{"n": to.Ptr(fmt.Sprint(i))},
			SecretAttributes: &azsecrets.SecretAttributes{Expires: to.Ptr(time.Unix(2_000_000_000, 0))},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, s.ID.Version())
	}
	for i, v := range versions {
		s, err := c.GetSecret(ctx, "life", v, nil)
		if err != nil || *s.Value != fmt.Sprint("v", i) || *s.Tags["n"] != fmt.Sprint(i) || s.Attributes.Expires.Unix() != 2_000_000_000 {
			t.Errorf("version %d: %+v %v", i, s, err)
		}
	}
	var listed []string
	for pages := c.NewListSecretPropertiesVersionsPager("life", nil); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Value {
			listed = append(listed, s.ID.Version())
		}
	}
	slices.Sort(listed)
	slices.Sort(versions)
	if diff := cmp.Diff(versions, listed); diff != "" {
		t.Error(diff)
	}

	if _, err := c.UpdateSecretProperties(ctx, "life", "", azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: to.Ptr(false)},
	}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetSecret(ctx, "life", "", nil); err == nil {
		t.Error("a disabled secret was read")
	} else if status, _ := refusal(err); status != 403 {
		t.Errorf("disabled: %v", err)
	}
	if _, err := c.UpdateSecretProperties(ctx, "life", "", azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: to.Ptr(true)},
	}, nil); err != nil {
		t.Fatal(err)
	}

	backup, err := c.BackupSecret(ctx, "life", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteSecret(ctx, "life", nil); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetSecret(ctx, "life", "", nil)
	if status, code := refusal(err); status != 404 || code != "SecretNotFound" {
		t.Errorf("deleted: %d %s", status, code)
	}
	_, err = c.SetSecret(ctx, "life", azsecrets.SetSecretParameters{Value: to.Ptr("x")}, nil)
	if status, code := refusal(err); status != 409 || code != "Conflict" {
		t.Errorf("set over a deleted one: %d %s", status, code)
	}
	if _, err := c.RecoverDeletedSecret(ctx, "life", nil); err != nil {
		t.Fatal(err)
	}
	if s, err := c.GetSecret(ctx, "life", "", nil); err != nil || *s.Value != "v2" {
		t.Errorf("recovered: %+v %v", s, err)
	}
	if _, err := c.DeleteSecret(ctx, "life", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PurgeDeletedSecret(ctx, "life", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil); err != nil {
		t.Fatal(err)
	}
	for i, v := range listed {
		if _, err := c.GetSecret(ctx, "life", v, nil); err != nil {
			t.Errorf("restored version %d: %v", i, err)
		}
	}
}

func TestPagingThroughTheSDK(t *testing.T) {
	p := podkeytest.Start(t, podkeytest.Options{Declare: shop + `
roleAssignments:
  - {identity: shop, role: Key Vault Administrator}
`})
	c := secrets(t, p, "shop-vault", workload(t, p, "shop", "shop", "web"))
	want := []string{"db-password"}
	for i := range 60 {
		name := fmt.Sprintf("page-%03d", i)
		want = append(want, name)
		if _, err := c.SetSecret(t.Context(), name, azsecrets.SetSecretParameters{Value: to.Ptr("x")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	pages := 0
	for pager := c.NewListSecretPropertiesPager(nil); pager.More(); pages++ {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Value {
			got = append(got, s.ID.Name())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if pages < 3 {
		t.Errorf("61 secrets came in %d pages", pages)
	}
}

// TestOwnNames reaches everything under Podkey's own names: a custom
// authority without instance discovery, and a vault with a port.
func TestOwnNames(t *testing.T) {
	p := podkeytest.Start(t, podkeytest.Options{Declare: shop})
	login, _, _ := strings.Cut(strings.TrimPrefix(p.Issuer, "https://issuer."), "/")
	o := options(p)
	o.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: "https://login." + login}
	cred, err := azidentity.NewClientAssertionCredential(p.TenantID, p.Identity("shop").ClientID, p.Assertion("shop", "web"),
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := azsecrets.NewClient("https://shop-vault.vault."+login, cred, &azsecrets.ClientOptions{ClientOptions: o})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.GetSecret(t.Context(), "db-password", "", nil)
	if err != nil || *got.Value != "hunter2" {
		t.Fatalf("%+v %v", got, err)
	}
	if !strings.HasPrefix(string(*got.ID), "https://shop-vault.vault."+login+"/") {
		t.Errorf("the id is not under the name that was asked: %s", *got.ID)
	}
}

// federated is the body of a federated credential.
func federated(issuer, subject string, audiences ...string) map[string]any {
	return map[string]any{"properties": map[string]any{"issuer": issuer, "subject": subject, "audiences": audiences}}
}

// TestEachWrongFieldHasItsCode changes one field of a good credential at a
// time: the refusal must be Entra's exact code.
func TestEachWrongFieldHasItsCode(t *testing.T) {
	const exchange = "api://AzureADTokenExchange"
	subject := "system:serviceaccount:shop:web"
	for _, c := range []struct {
		name string
		cred func(issuer string) map[string]any // nil: no credential at all
		want string                             // empty: accepted
	}{
		{"right", func(i string) map[string]any { return federated(i, subject, exchange) }, ""},
		{"issuer without its slash", func(i string) map[string]any { return federated(strings.TrimSuffix(i, "/"), subject, exchange) }, "AADSTS700211"},
		{"issuer in another case", func(i string) map[string]any {
			return federated(strings.Replace(i, "clusters", "Clusters", 1), subject, exchange)
		}, "AADSTS700211"},
		{"another issuer", func(i string) map[string]any { return federated("https://issuer.example/", subject, exchange) }, "AADSTS700211"},
		{"another namespace", func(i string) map[string]any { return federated(i, "system:serviceaccount:other:web", exchange) }, "AADSTS700213"},
		{"another service account", func(i string) map[string]any { return federated(i, "system:serviceaccount:shop:job", exchange) }, "AADSTS700213"},
		{"subject in another case", func(i string) map[string]any { return federated(i, "system:serviceaccount:Shop:web", exchange) }, "AADSTS7002138"},
		{"another audience", func(i string) map[string]any { return federated(i, subject, "api://other") }, "AADSTS700212"},
		{"audience in another case", func(i string) map[string]any { return federated(i, subject, "api://azureadtokenexchange") }, "AADSTS700212"},
		{"no credential", nil, "AADSTS70025"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := podkeytest.Start(t, podkeytest.Options{Declare: `
identities: [{name: shop, resourceGroup: shop}]
`})
			if c.cred != nil {
				manage(t, p, "PUT", p.Identity("shop").ResourceID+"/federatedIdentityCredentials/web?api-version=2023-01-31", c.cred(p.Issuer))
			}
			cred := workload(t, p, "shop", "shop", "web")
			_, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var af *azidentity.AuthenticationFailedError
			if !errors.As(err, &af) || af.RawResponse == nil {
				t.Fatalf("err = %v", err)
			}
			if af.RawResponse.StatusCode != http.StatusUnauthorized || !strings.Contains(err.Error(), c.want+":") {
				t.Errorf("HTTP %d, want 401 with %s: %v", af.RawResponse.StatusCode, c.want, err)
			}
		})
	}
}

// TestTimeOfTheAssertion: the clock is the server's.
func TestTimeOfTheAssertion(t *testing.T) {
	p := podkeytest.Start(t, podkeytest.Options{Declare: shop})
	cred := workload(t, p, "shop", "shop", "web")
	p.Clock.Advance(2 * time.Hour)
	_, err := cred.GetToken(context.WithoutCancel(t.Context()), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err == nil || !strings.Contains(err.Error(), "AADSTS700024:") {
		t.Errorf("an expired service-account token: %v", err)
	}
}
