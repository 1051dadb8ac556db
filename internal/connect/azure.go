package connect

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/podkey/podkey/internal/text"
)

// environment is one of Azure's clouds.
type environment struct{ management, graph, login string }

var environments = map[string]environment{
	"AzurePublicCloud":       {"https://management.azure.com", "https://graph.microsoft.com", "https://login.microsoftonline.com"},
	"AzureUSGovernmentCloud": {"https://management.usgovcloudapi.net", "https://graph.microsoft.us", "https://login.microsoftonline.us"},
	"AzureChinaCloud":        {"https://management.chinacloudapi.cn", "https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn"},
}

// Environments are the names of Azure's clouds.
func Environments() []string { return slices.Sorted(maps.Keys(environments)) }

// Ways to sign in to Azure.
const (
	AuthCLI         = "cli"
	AuthSecret      = "client_secret"
	AuthCertificate = "client_certificate"
	AuthDefault     = "default"
)

// AzureOptions say how to sign in to one of Azure's clouds.
type AzureOptions struct {
	Environment  string // one of [Environments], in any letters
	Subscription string // the az profile's default if empty
	Tenant       string // asked of the cloud if empty
	Method       string // AuthCLI if empty

	ClientID, ClientSecret   string
	CertificatePath, KeyPath string // PEM; for AuthCertificate

	Transport policy.Transporter // azcore's own if nil
}

// OpenAzure signs in to one of Azure's clouds.
func OpenAzure(ctx context.Context, o AzureOptions) (*Cloud, error) {
	var env environment
	for name, e := range environments {
		if strings.EqualFold(name, o.Environment) {
			env = e
		}
	}
	if env.management == "" {
		return nil, fmt.Errorf("unknown Azure environment %q: use %s", text.Printable(o.Environment), strings.Join(Environments(), ", "))
	}
	if o.Subscription = cmp.Or(o.Subscription, os.Getenv("AZURE_SUBSCRIPTION_ID")); o.Subscription == "" {
		var err error
		if o.Subscription, err = profileSubscription(); err != nil {
			return nil, err
		}
	}
	if !isGUID(o.Subscription) {
		return nil, fmt.Errorf("the subscription %q is not a GUID", text.Printable(o.Subscription))
	}
	if o.Tenant == "" {
		var err error
		if o.Tenant, err = tenantOf(ctx, env, &o); err != nil {
			return nil, err
		}
	}
	cred, err := o.credential(env)
	if err != nil {
		return nil, err
	}
	return NewCloud(CloudOptions{
		TenantID: o.Tenant, SubscriptionID: o.Subscription,
		Management: env.management, Graph: env.graph, Login: env.login, Credential: cred, Transport: o.Transport,
	}), nil
}

func (o *AzureOptions) credential(env environment) (azcore.TokenCredential, error) {
	options := azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: env.login + "/"}, Transport: o.Transport}
	switch o.Method {
	case "", AuthCLI:
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: o.Tenant})
	case AuthDefault:
		return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options, TenantID: o.Tenant})
	case AuthSecret:
		switch {
		case o.ClientID == "":
			return nil, errors.New("--client-id is required")
		case o.ClientSecret == "":
			return nil, errors.New("--client-secret is required")
		}
		return azidentity.NewClientSecretCredential(o.Tenant, o.ClientID, o.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	case AuthCertificate:
		switch {
		case o.ClientID == "":
			return nil, errors.New("--client-id is required")
		case o.CertificatePath == "":
			return nil, errors.New("--certificate-path is required")
		case o.KeyPath == "":
			return nil, errors.New("--private-key-path is required")
		}
		var both []byte
		for _, file := range []string{o.CertificatePath, o.KeyPath} {
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read the client's certificate: %w", err)
			}
			both = append(append(both, b...), '\n')
		}
		certs, key, err := azidentity.ParseCertificates(both, nil)
		if err != nil {
			return nil, errors.New("read the client's certificate: the files have no certificate and key in PEM form that belong together")
		}
		return azidentity.NewClientCertificateCredential(o.Tenant, o.ClientID, certs, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: options})
	}
	return nil, fmt.Errorf("unknown --auth-method %q: use %s, %s, %s or %s", text.Printable(o.Method), AuthCLI, AuthSecret, AuthCertificate, AuthDefault)
}

// profileSubscription is the default subscription of the az command line.
func profileSubscription() (string, error) {
	dir := os.Getenv("AZURE_CONFIG_DIR")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.New("--subscription-id is required")
		}
		dir = filepath.Join(home, ".azure")
	}
	var profile struct {
		Subscriptions []struct {
			ID      string `json:"id"`
			Default bool   `json:"isDefault"`
		} `json:"subscriptions"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "azureProfile.json"))
	// az writes a byte order mark.
	if err == nil && json.Unmarshal(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), &profile) == nil {
		for _, s := range profile.Subscriptions {
			if s.Default {
				return s.ID, nil
			}
		}
	}
	return "", errors.New("--subscription-id is required: az has no default subscription (az login, az account set)")
}

// tenantOf asks the management API, without a token, whose a subscription is.
func tenantOf(ctx context.Context, env environment, o *AzureOptions) (string, error) {
	p := (&Cloud{transport: o.Transport}).pipeline(nil, "")
	req, err := runtime.NewRequest(ctx, http.MethodGet, env.management+"/subscriptions/"+o.Subscription+"?api-version=2022-12-01")
	if err != nil {
		return "", err
	}
	resp, err := p.Do(req)
	if err != nil {
		return "", fmt.Errorf("find the tenant of the subscription: %s does not answer: %w", req.Raw().URL.Host, err)
	}
	defer resp.Body.Close()
	_, after, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), `authorization_uri="`)
	authority, _, _ := strings.Cut(after, `"`)
	u, err := url.Parse(authority)
	if err != nil || !isGUID(strings.Trim(u.Path, "/")) {
		return "", fmt.Errorf("find the tenant of the subscription: %s does not tell it; is the subscription right?", req.Raw().URL.Host)
	}
	return strings.Trim(u.Path, "/"), nil
}
