package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/install/installtest"
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

// runServer runs a server until stop is called.
func runServer(t *testing.T, c Config) (api *client.Client, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s, err := New(ctx, c, Deps{Log: discard})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	if api, err = client.Open(c.Data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.HTTP.CloseIdleConnections)
	return api, stop
}

// TestWorkInAClusterOutlivesTheServer: a server that is stopped half-way does
// the work when it starts again, with its own configuration.
func TestWorkInAClusterOutlivesTheServer(t *testing.T) {
	const deployment = "/apis/apps/v1/namespaces/keys/deployments/podkey-webhook"
	k := installtest.New(t)
	held, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	k.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != deployment || r.Method != http.MethodPatch {
			return false
		}
		once.Do(func() { close(held) })
		select {
		case <-gate:
			return false
		case <-r.Context().Done():
			return true
		}
	}
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte("webhook: {replicas: 3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Clusters: ClusterConfig{Image: "registry.example/podkey:v9", Namespace: "keys", Values: values}}
	api, stop := runServer(t, c)
	if err := register(t, api, "c", map[string]any{"issuer": "https://10.0.0.1/", "keySource": "Pinned", "jwks": strongKeys(), "kubeconfig": k.Kubeconfig("", "")}); err != nil {
		t.Fatal(err)
	}
	path := "/subscriptions/" + api.Operator.SubscriptionID + "/resourceGroups/clusters/providers/Microsoft.ContainerService/managedClusters/c?api-version=" + client.VersionClusters
	var now client.Cluster
	wish := map[string]any{"location": "westeurope", "properties": map[string]any{"securityProfile": map[string]any{"workloadIdentity": map[string]any{"enabled": true}}}}
	if err := api.Manage(t.Context(), "PUT", path, wish, &now); err != nil || now.Properties.State != "Updating" {
		t.Fatal(err, now.Properties.State)
	}
	<-held
	stop()
	close(gate)

	api, _ = runServer(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for now.Properties.State == "Updating" {
		now = client.Cluster{}
		if err := api.Manage(ctx, "GET", path, nil, &now); err != nil {
			t.Fatal(err)
		}
		<-again.C
	}
	if now.Properties.State != "Succeeded" || len(now.Properties.Podkey.ToInstall) > 0 {
		t.Fatalf("%+v", now.Properties)
	}
	d, err := json.Marshal(k.Get(deployment))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"registry.example/podkey:v9", `"replicas":3`, api.Operator.TenantID, "--authority-host=" + api.Operator.Endpoints.Login + "/"} {
		if !strings.Contains(string(d), part) {
			t.Errorf("no %s in the Deployment", part)
		}
	}
	ca, err := os.ReadFile(api.Operator.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	trust, _ := k.Get("/api/v1/namespaces/keys/configmaps/podkey-trust")["data"].(map[string]any)
	if trust["ca.pem"] != string(ca) {
		t.Errorf("the pods trust %v", trust)
	}
}

func TestMistakesInTheConfigurationOfClustersStopTheStart(t *testing.T) {
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for says, c := range map[string]ClusterConfig{
		"clusters.image":                 {Image: "a b"},
		"clusters.namespace":             {Namespace: "No"},
		"read clusters.values":           {Values: "/none/values.yaml"},
		"clusters.values: ":              {Values: file("a: b: c")},
		"webhook.replica is not a value": {Values: file("webhook: {replica: 1}")},
	} {
		_, err := New(t.Context(), Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Clusters: c}, Deps{Log: discard})
		if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(says, ": ")) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// TestAddressesOfAPIServers: who chose an address decides which of them are
// open, and some never are.
func TestAddressesOfAPIServers(t *testing.T) {
	k := installtest.New(t)
	here := k.Listener.Addr().String()
	for name, c := range map[string]struct {
		trusted, loopback, private, open bool
	}{
		"anybody": {}, "an operator": {trusted: true, open: true}, "anybody, loopback allowed": {loopback: true, open: true}, "anybody, private allowed": {private: true},
	} {
		s := &Server{config: Config{Clusters: ClusterConfig{AllowLoopback: c.loopback, AllowPrivate: c.private}}}
		conn, err := s.dialCluster(c.trusted)(t.Context(), "tcp", here)
		if (err == nil) != c.open {
			t.Errorf("%s: %v", name, err)
		}
		if conn != nil {
			conn.Close()
		} else if strings.Contains(err.Error(), "127.0.0.1") || !strings.Contains(err.Error(), "clusters.allowLoopback") {
			t.Errorf("%s: %v", name, err)
		}
		if err := discreet(&net.DNSError{Err: "no such host", Name: "api.test", Server: "10.0.0.53:53"}); strings.Contains(err.Error(), "10.0.0.53") || !strings.Contains(err.Error(), "no such host") {
			t.Errorf("a name that is none: %v", err)
		}
		if _, err := s.dialCluster(c.trusted)(t.Context(), "tcp", "169.254.169.254:443"); err == nil || !strings.Contains(err.Error(), "does not connect") {
			t.Errorf("%s, link-local: %v", name, err)
		}
	}
}
