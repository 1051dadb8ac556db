package server

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/client"
)

func TestFirstStartMakesTheOperator(t *testing.T) {
	dir := t.TempDir()
	_, api := startServer(t, Config{Data: dir})
	for name, mode := range map[string]os.FileMode{client.OperatorFile: 0o600, "kek.json": 0o600, "audit.jsonl": 0o600, "ca.pem": 0o644} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", name, fi.Mode(), err, mode)
		}
	}
	op := api.Operator
	for name, v := range map[string]string{
		"tenantId": op.TenantID, "subscriptionId": op.SubscriptionID, "clientId": op.ClientID, "clientSecret": op.ClientSecret,
		"userName": op.UserName, "userPassword": op.UserPassword, "listen": op.Listen, "caFile": op.CAFile, "login": op.Endpoints.Login,
		"management": op.Endpoints.Management, "graph": op.Endpoints.Graph, "vaultSuffix": op.Endpoints.VaultSuffix, "issuer": op.Endpoints.Issuer,
	} {
		if v == "" {
			t.Errorf("operator.json: %s is empty", name)
		}
	}
	// The operator sees its subscription, and is signed in by its secret.
	var list struct {
		Value []struct{ SubscriptionID string }
	}
	if err := api.Manage(t.Context(), "GET", "/subscriptions?api-version=2022-12-01", nil, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Value) != 1 || list.Value[0].SubscriptionID != op.SubscriptionID {
		t.Errorf("subscriptions: %+v", list)
	}
}

func TestRestartKeepsWhoTheOperatorIs(t *testing.T) {
	dir := t.TempDir()
	var first client.Operator
	start := func(name string, check func(t *testing.T, op client.Operator)) {
		t.Run(name, func(t *testing.T) {
			_, api := startServer(t, Config{Data: dir})
			if _, err := api.Token(t.Context(), api.Operator.Endpoints.Management); err != nil {
				t.Fatal(err)
			}
			check(t, api.Operator)
		})
	}
	start("first", func(t *testing.T, op client.Operator) { first = op })
	start("again", func(t *testing.T, op client.Operator) {
		if op.TenantID != first.TenantID || op.ClientSecret != first.ClientSecret || op.UserPassword != first.UserPassword {
			t.Errorf("changed: %s, %s", op.TenantID, op.ClientID)
		}
	})
	if err := os.Remove(filepath.Join(dir, client.OperatorFile)); err != nil {
		t.Fatal(err)
	}
	start("without the file", func(t *testing.T, op client.Operator) {
		if op.TenantID != first.TenantID || op.ClientID != first.ClientID {
			t.Error("another operator was made")
		}
		if op.ClientSecret == first.ClientSecret || op.ClientSecret == "" {
			t.Error("no new secret was made")
		}
	})
	if err := os.WriteFile(filepath.Join(dir, client.OperatorFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("damaged file", func(t *testing.T) {
		s, err := New(t.Context(), Config{Data: dir, Listen: "127.0.0.1:0"}, Deps{Log: discard})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("err = %v", err)
		}
	})
}

func TestHealthOnEveryHost(t *testing.T) {
	s, _ := startServer(t, Config{})
	for _, host := range []string{"login.microsoftonline.com", "x.vault.azure.net", "127.0.0.1", "nobody.example"} {
		for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready"} {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "https://"+host+path, nil))
			var got struct{ Status string }
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || got.Status != want {
				t.Errorf("%s%s: %d %s", host, path, w.Code, w.Body)
			}
		}
	}
}

func TestHostsThatAreNotOurs(t *testing.T) {
	s, _ := startServer(t, Config{})
	for _, host := range []string{"nobody.example", "a.b.vault.azure.net"} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "https://"+host+"/anything", nil))
		var got struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 404 || got.Error.Code == "" || got.Error.Message == "" {
			t.Errorf("%s: %d %s", host, w.Code, w.Body)
		}
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	err := Config{
		Listen: "nowhere", Domain: "Not A Domain", KEK: "awskms://k",
		Etcd: EtcdConfig{Endpoints: []string{"http://127.0.0.1:2379"}}, Tokens: TokenConfig{Algorithm: "none", FederatedLimit: -1}, TLS: TLSConfig{Cert: "c"},
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"data:", "listen:", "domain:", "kek:", "etcd.endpoints:", "etcd:", "tokens.algorithm:", "tokens.federatedLimit:", "tls:"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no word of %s in %v", part, err)
		}
	}
}
