package webhook

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

func TestRegistration(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	for _, key := range []string{mutatingKey, validatingKey} {
		if len(bundleIn(api.get(key), 0)) == 0 || len(bundleIn(api.get(key), 1)) != 0 {
			t.Errorf("%s: ours %d bytes, theirs %d bytes", key, len(bundleIn(api.get(key), 0)), len(bundleIn(api.get(key), 1)))
		}
	}
	good := bundleIn(api.get(mutatingKey), 0)
	other, err := pki.NewCA("other", c.now())
	if err != nil {
		t.Fatal(err)
	}
	for name, reset := range map[string]func(){
		"emptied":  func() { api.put(mutatingKey, configuration()) },
		"replaced": func() { setBundle(api, mutatingKey, other.CertPEM()) },
		"deleted and created": func() {
			api.remove(mutatingKey)
			r.await("seeing it deleted", func() bool { return r.keeper.mutating.get() == nil })
			if p := r.problem(); p != "" {
				t.Errorf("without a configuration, nobody calls, and readiness says: %s", p)
			}
			api.put(mutatingKey, configuration())
		},
	} {
		reset()
		await(t, name+": repair", []func() <-chan struct{}{api.changes}, func() bool {
			return bytes.Contains(bundleIn(api.get(mutatingKey), 0), good)
		})
		r.await(name+": readiness", func() bool { return r.problem() == "" })
		r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	}
}

func setBundle(api *apiServer, key string, pem []byte) {
	api.change(key, func(o object) {
		o["webhooks"].([]any)[0].(object)["clientConfig"].(object)["caBundle"] = base64.StdEncoding.EncodeToString(pem)
	})
}

func TestReplicasAgree(t *testing.T) {
	api, c := installed(t)
	var replicas []*replica
	for range 5 {
		replicas = append(replicas, start(t, api, c))
	}
	for _, r := range replicas {
		r.awaitReady()
	}
	for _, r := range replicas {
		r.await("the same certificate", func() bool { return r.serial() == replicas[0].serial() })
		r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	}
	if n := len(pki.Certificates(bundleIn(api.get(mutatingKey), 0))); n != 1 {
		t.Errorf("%d CAs are registered", n)
	}
	for _, r := range replicas {
		if logs := r.logs.String(); strings.Contains(logs, "could not be kept in order") {
			t.Errorf("a lost race is reported as a failure: %s", logs)
		}
	}
}

func TestSecretReplacedByHand(t *testing.T) {
	api, c := installed(t)
	one, two := start(t, api, c), start(t, api, c)
	one.awaitReady()
	two.awaitReady()
	m := mustNext(t, material{}, nil, c.now(), never).m
	want := m.leaf.Leaf.SerialNumber.String()
	replaceSecret(t, api, m)
	for _, r := range []*replica{one, two} {
		r.await("taking it up", func() bool { return r.serial() == want })
		r.awaitReady()
		r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	}
	if !contains(pki.Certificates(bundleIn(api.get(mutatingKey), 0)), m.ca.Cert) {
		t.Error("its CA is not registered")
	}
}

// While the CA of a replaced certificate cannot be registered, the old one is
// served.
func TestReplacedCertificateWaitsForRegistration(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	before := r.serial()
	api.refuse("update mutatingwebhookconfigurations", http.StatusForbidden)
	replaceSecret(t, api, mustNext(t, material{}, nil, c.now(), never).m)
	r.await("the failure to register", func() bool { _, err := r.keeper.state(); return err != nil })
	if r.serial() != before {
		t.Error("a certificate is served whose CA nobody knows")
	}
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	api.refuse("update mutatingwebhookconfigurations", 0)
	r.keeper.changed()
	r.await("taking it up", func() bool { return r.serial() != before })
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
}

func TestSecretDeleted(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	before := r.serial()
	api.remove(secretKey)
	await(t, "a new secret", []func() <-chan struct{}{api.changes}, func() bool { return api.get(secretKey) != nil })
	await(t, "both CAs registered", []func() <-chan struct{}{api.changes}, func() bool {
		return len(pki.Certificates(bundleIn(api.get(mutatingKey), 0))) == 2
	})
	if r.serial() != before {
		t.Error("the new CA's certificate is served before everybody can know that CA")
	}
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	// After the time to settle, the next look moves on; any change is a look.
	c.forward(11 * time.Minute)
	r.keeper.changed()
	r.await("the new CA's certificate", func() bool { return r.serial() != before })
	r.await("readiness", func() bool { return r.problem() == "" })
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
}

func TestRenewal(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	before := r.serial()
	c.forward(274 * 24 * time.Hour)
	r.keeper.changed()
	r.await("a look", func() bool { return true })
	if r.serial() != before {
		t.Error("renewed 91 days before the end")
	}
	c.forward(2 * 24 * time.Hour)
	r.keeper.changed()
	r.await("renewal", func() bool { return r.serial() != before })
	r.awaitReady()
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	_, body := get(t, r.MetricsAddr(), "/metrics")
	if !strings.Contains(body, `podkey_webhook_certificates_issued_total{kind="serving"} 2`) {
		t.Error("renewal is not counted")
	}
}

// An outage of the API server longer than its history: nothing fails but new
// look-ups, and everything is followed again afterwards.
func TestAPIServerRestarts(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	up := api.restart()
	r.mustPost(client, `{"namespace":"shop","account":"web"}`)
	api.put("serviceaccounts/shop/web", object{"metadata": object{"annotations": object{"azure.workload.identity/client-id": "changed"}}})
	api.put(mutatingKey, configuration())
	up()
	await(t, "repair after the outage", []func() <-chan struct{}{api.changes}, func() bool {
		return len(bundleIn(api.get(mutatingKey), 0)) > 0
	})
	r.awaitReady()
}

func TestSuppliedCertificate(t *testing.T) {
	api, c := installed(t)
	dir := t.TempDir()
	ca, err := pki.NewCA("theirs", c.now())
	if err != nil {
		t.Fatal(err)
	}
	supply := func() string {
		m := material{roots: []*x509.Certificate{ca.Cert}, ca: ca}
		if m.leaf, err = ca.Issue(pki.Leaf{DNSNames: []string{host}}, c.now()); err != nil {
			t.Fatal(err)
		}
		data, err := m.data()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{tlsCertKey, tlsKeyKey} {
			if err := os.WriteFile(filepath.Join(dir, name), data[name], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return m.leaf.Leaf.SerialNumber.String()
	}
	if _, err := New(Config{
		Kube: api.config(), Log: discard(), CertDir: dir, Namespace: "n", Service: "s", Configuration: "c",
		MaxReview: testMaxReview, Annotations: testAnnotations, MaxAnnotation: testMaxAnnotation,
	}); err == nil || !strings.Contains(err.Error(), "tls.crt") {
		t.Errorf("no files: %v", err)
	}
	supply()
	r := start(t, api, c, func(c *Config) { c.CertDir, c.Secret = dir, "" })
	<-r.prepared
	r.await("the complaint", func() bool { return strings.Contains(r.problem(), "its caBundle is empty") })
	setBundle(api, mutatingKey, ca.CertPEM())
	setBundle(api, validatingKey, ca.CertPEM())
	r.awaitReady()
	want := supply()
	if got := r.serial(); got != want {
		t.Error("new files are not taken up")
	}
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	for _, what := range []string{"update mutatingwebhookconfigurations", "update validatingwebhookconfigurations", "list secrets", "watch secrets", "create secrets"} {
		if n := api.called(what); n != 0 {
			t.Errorf("%d times: %s", n, what)
		}
	}
}
