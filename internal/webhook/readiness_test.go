package webhook

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

func TestReadinessTellsWhatIsWrong(t *testing.T) {
	api := newAPIServer(t)
	c := new(clock)
	// Nothing may be written, so nothing is repaired.
	api.refuse("update mutatingwebhookconfigurations", http.StatusForbidden)
	api.refuse("update validatingwebhookconfigurations", http.StatusForbidden)
	r := start(t, api, c)
	<-r.prepared
	<-r.accounts.controller.HasSyncedChecker().Done()
	r.await("a certificate", func() bool { return r.serial() != "" })

	expect := func(what string) {
		t.Helper()
		r.await("the complaint: "+what, func() bool { return strings.Contains(r.problem(), what) })
		code, body := get(t, r.HealthAddr(), "/readyz")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] registration: ") || !strings.Contains(body, what) {
			t.Errorf("status %d: %s", code, body)
		}
	}
	expect("MutatingWebhookConfiguration podkey-webhook does not exist")
	api.put(mutatingKey, object{"webhooks": []any{hook("theirs.example", "theirs")}})
	expect("has no webhook that calls service podkey-webhook in namespace podkey-system")
	api.put(mutatingKey, configuration())
	expect("webhook mutation.azure-workload-identity.io: its caBundle is empty")
	other, err := pki.NewCA("other", c.now())
	if err != nil {
		t.Fatal(err)
	}
	setBundle(api, mutatingKey, other.CertPEM())
	expect("its caBundle does not accept the certificate that is served")
	expect("refused by the test") // why it is not repaired

	setBundle(api, mutatingKey, pki.EncodeCertificates(readMaterial(secretData(r.keeper.secret.get())).roots[0].Raw))
	r.await("readiness", func() bool { return r.problem() == "" })
	if code, body := get(t, r.HealthAddr(), "/readyz"); code != http.StatusOK || !strings.Contains(body, "[+] registration\n") {
		t.Errorf("status %d: %s", code, body)
	}
	api.put(validatingKey, configuration())
	expect("ValidatingWebhookConfiguration podkey-webhook, webhook mutation.azure")
	if code, body := get(t, r.HealthAddr(), "/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("alive: %d %s", code, body)
	}
}

// Anybody may ask for readiness: asking is not multiplied into handshakes.
func TestReadinessIsRemembered(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	r.ready.mu.Lock()
	r.ready.ttl, r.ready.at = time.Hour, time.Time{}
	r.ready.mu.Unlock()
	if p := r.problem(); p != "" {
		t.Fatal(p)
	}
	at := r.ready.at
	for range 100 {
		if code, _ := get(t, r.HealthAddr(), "/readyz"); code != http.StatusOK {
			t.Fatal("not ready")
		}
	}
	if r.ready.at != at {
		t.Error("the checks ran again")
	}
}

// The API server is down when the webhook starts.
func TestStartWithoutAPIServer(t *testing.T) {
	api, c := installed(t)
	up := api.restart()
	r := start(t, api, c)
	if p := r.problem(); !strings.Contains(p, "service accounts: not read") || !strings.Contains(p, "rules: ") || !strings.Contains(p, "certificate: there is no") {
		t.Errorf("readiness says: %s", p)
	}
	code, _, err := r.post(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}, MutatePath, "{}")
	if err == nil {
		t.Errorf("answered with %d without a certificate", code)
	}
	up()
	r.awaitReady()
}
