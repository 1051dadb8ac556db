package sts_test

import (
	"time"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

func TestZZSDK(t *testing.T) {
	g := start(t)
	g.mu.Lock(); g.mu.Unlock()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Log(r.Method, r.Host, r.URL)
		g.edge.ServeHTTP(w, r)
	}))
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { return net.Dial("tcp", s.Listener.Addr().String()) },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	try := func(name string, f func(o azcore.ClientOptions) (azcore.TokenCredential, error), o azcore.ClientOptions) {
		t.Run(name, func(t *testing.T) {
			o.Transport = client
			o.Retry.MaxRetries = -1
			c, err := f(o)
			if err != nil { t.Fatal(err) }
			tok, err := c.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}, EnableCAE: true})
			if err != nil { t.Fatal(err) }
			t.Log(tok.ExpiresOn, tok.RefreshOn, len(tok.Token))
		})
	}
	file := filepath.Join(t.TempDir(), "tok")
	os.WriteFile(file, []byte(g.issuer.sign(g.assertion(), nil)), 0o600)
	cert, _ := x509.ParseCertificate(clientCertificate())
	for _, cfg := range []struct{ name string; o azcore.ClientOptions; disable bool; region string }{
		{"azure", azcore.ClientOptions{}, false, ""},
		{"own", azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: "https://" + ownHost}}, true, ""},
		{"own-discovery", azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: "https://" + ownHost}}, false, ""},
		{"bare", azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: "https://" + bareHost}}, true, ""},
		{"region", azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: "https://" + ownHost}}, false, "westeurope"},
	} {
		if cfg.region != "" { t.Setenv("AZURE_REGIONAL_AUTHORITY_NAME", cfg.region) }
		try(cfg.name+"/secret", func(o azcore.ClientOptions) (azcore.TokenCredential, error) {
			return azidentity.NewClientSecretCredential(tenantID, g.app.AppID, g.secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: cfg.disable})
		}, cfg.o)
		try(cfg.name+"/cert", func(o azcore.ClientOptions) (azcore.TokenCredential, error) {
			return azidentity.NewClientCertificateCredential(tenantID, g.app.AppID, []*x509.Certificate{cert}, clientKey(), &azidentity.ClientCertificateCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: cfg.disable, SendCertificateChain: true})
		}, cfg.o)
		try(cfg.name+"/workload", func(o azcore.ClientOptions) (azcore.TokenCredential, error) {
			return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: cfg.disable, TenantID: tenantID, ClientID: g.mi.ClientID, TokenFilePath: file})
		}, cfg.o)
		try(cfg.name+"/adfs", func(o azcore.ClientOptions) (azcore.TokenCredential, error) {
			return azidentity.NewClientSecretCredential("adfs", g.app.AppID, g.secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
		}, cfg.o)
	}
}


var rigStart = time.Now()
