package kubeconfig

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

const token = "hunter2-opens-the-cluster"

// apiServer answers as a Kubernetes API server does, but for what a test puts
// in its place; it stands in for one because that needs root and minutes to
// start, and none of these failures could be had from it.
func apiServer(t *testing.T, instead map[string]http.HandlerFunc) *Access {
	t.Helper()
	answers := map[string]string{
		"/.well-known/openid-configuration": `{"issuer":"https://oidc.example/c/","jwks_uri":"https://elsewhere.example/keys"}`,
		"/openid/v1/jwks":                   `{"keys":[]}`,
		"/version":                          `{"gitVersion":"v1.33.1+k3s1"}`,
	}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := instead[r.URL.Path]; h != nil {
			h(w, r)
			return
		}
		text, ok := answers[r.URL.Path]
		if !ok || r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		// Each has one media type, and whoever does not accept it gets a 406.
		kind := "application/json"
		if r.URL.Path == "/openid/v1/jwks" {
			kind = "application/jwk-set+json"
		}
		if !strings.Contains(r.Header.Get("Accept"), kind) {
			w.WriteHeader(http.StatusNotAcceptable)
			return
		}
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(srv.Close)
	return &Access{Server: srv.URL, Token: token, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})}
}

func TestAskIssuer(t *testing.T) {
	t.Parallel()
	a := apiServer(t, nil)
	got, err := a.AskIssuer(t.Context())
	if err != nil || got.URL != "https://oidc.example/c/" || string(got.JWKS) != `{"keys":[]}` || got.Version != "1.33.1+k3s1" {
		t.Errorf("%+v %v", got, err)
	}
	// A cluster behind a path, as some managers of clusters have them.
	a.Server += "/"
	if _, err := a.AskIssuer(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAskIssuerFailures(t *testing.T) {
	t.Parallel()
	const discovery, jwks = "/.well-known/openid-configuration", "/openid/v1/jwks"
	writes := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	var leaked atomic.Bool
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked.Store(true) }))
	defer thief.Close()
	for name, c := range map[string]struct {
		instead map[string]http.HandlerFunc
		says    string
	}{
		"no issuer":   {map[string]http.HandlerFunc{discovery: writes(`{}`)}, "names no issuer"},
		"no JSON":     {map[string]http.HandlerFunc{discovery: writes(`<html>`)}, "names no issuer"},
		"keys":        {map[string]http.HandlerFunc{jwks: writes(`<html>`)}, "not JSON"},
		"huge":        {map[string]http.HandlerFunc{jwks: writes(strings.Repeat(" ", maxDocument+1))}, "longer than"},
		"not allowed": {map[string]http.HandlerFunc{jwks: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }}, "status 403"},
		"redirect":    {map[string]http.HandlerFunc{jwks: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL, http.StatusFound) }}, "status 302"},
	} {
		_, err := apiServer(t, c.instead).AskIssuer(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if leaked.Load() {
		t.Error("a redirect was followed")
	}
	a := apiServer(t, nil)
	a.Token = "wrong"
	_, err := a.AskIssuer(t.Context())
	if e, ok := errors.AsType[*StatusError](err); !ok || e.Hint() == "" {
		t.Errorf("%v, without a hint", err)
	}
	a.CA = nil // nobody's, so that the machine's roots are asked
	if _, err := a.AskIssuer(t.Context()); err == nil {
		t.Error("the certificate was not verified")
	}
	if _, err := apiServer(t, map[string]http.HandlerFunc{"/version": writes("<html>")}).AskIssuer(t.Context()); err != nil {
		t.Errorf("a cluster that does not tell its version: %v", err)
	}
}

func TestPlugin(t *testing.T) {
	t.Parallel()
	a := apiServer(t, nil)
	a.Token = ""
	run := func(script string, e Exec) error {
		t.Helper()
		e.Command, e.Args = "/bin/sh", []string{"-c", script}
		b := *a
		b.Exec = &e
		_, err := b.AskIssuer(t.Context())
		return err
	}
	credential := func(version string) string {
		b, err := json.Marshal(map[string]any{"apiVersion": version, "kind": "ExecCredential", "status": map[string]any{"token": token}})
		if err != nil {
			t.Fatal(err)
		}
		return "echo '" + string(b) + "'\n"
	}
	for _, v := range execVersions {
		// It is told about itself and its cluster, and gets its own variables.
		script := `case "$KUBERNETES_EXEC_INFO" in *'"server":"` + a.Server + `"'*) ;; *) exit 3;; esac; test "$HELLO" = you || exit 4` + "\n"
		if err := run(script+credential(v), Exec{APIVersion: v, ProvideClusterInfo: true, Env: []EnvVar{{"HELLO", "you"}}}); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
	v1 := execVersions[0]
	for name, c := range map[string]struct {
		script string
		exec   Exec
	}{
		"another version": {credential("client.authentication.k8s.io/v1beta1"), Exec{APIVersion: v1}},
		"old version":     {credential("client.authentication.k8s.io/v1alpha1"), Exec{APIVersion: "client.authentication.k8s.io/v1alpha1"}},
		"wants terminal":  {credential(v1), Exec{APIVersion: v1, InteractiveMode: "Always"}},
		"fails":           {"echo " + token + "; exit 1", Exec{APIVersion: v1}},
		"no JSON":         {"echo " + token, Exec{APIVersion: v1}},
		"no credential":   {`echo '{"apiVersion":"` + v1 + `","kind":"ExecCredential","status":{}}'`, Exec{APIVersion: v1}},
	} {
		if err := run(c.script, c.exec); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
