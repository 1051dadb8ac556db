//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

// The tests of the files faults*_test.go disturb what all tests share. They do
// not run in parallel, and so before all that do, and each leaves webhook, API
// server and token service as it found them: working.

// attempt is the creation of one labelled pod.
type attempt struct {
	start, end time.Time
	err        error // why it was not admitted
	bare       bool  // admitted, but without what the webhook adds
}

// pump creates labelled pods of a workload without a pause, as several clients
// that do not repeat what fails. Dry runs: they take the same way through the
// webhook, and leave no pods to schedule and delete.
type pump struct {
	end  context.CancelFunc
	done sync.WaitGroup

	mu   sync.Mutex
	made []attempt
}

func (x *world) pump(t *testing.T, l workload) *pump {
	ctx, cancel := context.WithCancel(t.Context())
	p := &pump{end: cancel}
	for range 4 {
		p.done.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				if a := x.attempt(ctx, l); ctx.Err() == nil {
					p.mu.Lock()
					p.made = append(p.made, a)
					p.mu.Unlock()
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(p.stop)
	return p
}

func (x *world) attempt(ctx context.Context, l workload) attempt {
	a := attempt{start: time.Now()}
	body := fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Pod",
		"metadata": {"generateName": "pump-", "namespace": %q, "labels": {"azure.workload.identity/use": "true"}},
		"spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "x"}]}}`, l.ns)
	status, answer, err := x.Do(ctx, http.MethodPost, "/api/v1/namespaces/"+l.ns+"/pods?dryRun=All", body)
	a.end = time.Now()
	switch {
	case err != nil:
		a.err = err
	case status != http.StatusCreated:
		a.err = fmt.Errorf("HTTP %d: %s", status, answer)
	default:
		var made pod
		a.bare = json.Unmarshal(answer, &made) != nil || made.once(l.clientID) != nil
	}
	return a
}

// stop ends the pump. It may be called again.
func (p *pump) stop() {
	p.end()
	p.done.Wait()
}

// since are the attempts that began after a moment.
func (p *pump) since(at time.Time) (out []attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.made {
		if a.start.After(at) {
			out = append(out, a)
		}
	}
	return out
}

// works waits until pods are admitted again: this many in a row.
func (p *pump) works(t *testing.T, since time.Time) {
	t.Helper()
	const enough = 40
	eventually(t, "pods are admitted", func() (bool, string) {
		got := p.since(since)
		if len(got) < enough {
			return false, "too few attempts"
		}
		for _, a := range got[len(got)-enough:] {
			if a.err != nil {
				return false, a.err.Error()
			}
		}
		return true, ""
	})
}

// judge fails the test if a pod was admitted without its identity after a
// moment, or if one was refused later than the time that an outage may take;
// zero means that none may be refused at all.
func (p *pump) judge(t *testing.T, what string, since time.Time, outage time.Duration) {
	t.Helper()
	got := p.since(since)
	var failed []attempt
	for _, a := range got {
		if a.bare {
			t.Errorf("%s: a pod was admitted without its identity", what)
		}
		if a.err != nil {
			failed = append(failed, a)
		}
	}
	if failed == nil {
		t.Logf("%s: %d pods, none refused", what, len(got))
		return
	}
	last := slices.MaxFunc(failed, func(a, b attempt) int { return a.end.Compare(b.end) })
	took := last.end.Sub(since).Round(time.Millisecond)
	t.Logf("%s: %d of %d pods refused, the last after %v: %v", what, len(failed), len(got), took, last.err)
	if took > outage {
		t.Errorf("%s: pods were refused for %v, want at most %v", what, took, outage)
	}
}

// pod is what these tests read of one.
type pod struct {
	Metadata struct {
		Name, UID         string
		Labels            map[string]string
		DeletionTimestamp string
	}
	Spec struct {
		Containers []struct {
			Env          []struct{ Name, Value string }
			VolumeMounts []struct{ Name, MountPath string }
		}
		Volumes []struct{ Name string }
	}
	Status struct {
		Phase, PodIP      string
		ContainerStatuses []struct {
			Ready        bool
			RestartCount int
		}
	}
}

// once is nil if the webhook has given the pod this identity, and has done so
// once.
func (p *pod) once(clientID string) error {
	count := map[string]int{}
	for _, v := range p.Spec.Volumes {
		count["volume "+v.Name]++
	}
	for _, c := range p.Spec.Containers {
		for _, m := range c.VolumeMounts {
			count["mount "+m.Name]++
		}
		for _, e := range c.Env {
			count[e.Name]++
			if e.Name == "AZURE_CLIENT_ID" && e.Value != clientID {
				return fmt.Errorf("AZURE_CLIENT_ID is %q, want %q", e.Value, clientID)
			}
		}
	}
	for _, name := range []string{
		"volume azure-identity-token", "mount azure-identity-token", "volume podkey-trust", "mount podkey-trust",
		"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST", "SSL_CERT_FILE",
	} {
		if count[name] != 1 {
			return fmt.Errorf("%s is there %d times", name, count[name])
		}
	}
	return nil
}

func (p *pod) ready() bool {
	return p.Metadata.DeletionTimestamp == "" && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].Ready
}

// pods lists pods.
func (x *world) pods(t *testing.T, ns, query string) []pod {
	t.Helper()
	var list struct{ Items []pod }
	b, err := x.Get(t.Context(), "/api/v1/namespaces/"+ns+"/pods"+query)
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// replicas are the webhook's pods.
func (x *world) replicas(t *testing.T) []pod {
	t.Helper()
	return x.pods(t, system, "?labelSelector=app.kubernetes.io/component%3Dwebhook")
}

// ready waits until the webhook has its two replicas, none of which is one
// that meets a condition.
func (x *world) ready(t *testing.T, not func(*pod) bool) {
	t.Helper()
	eventually(t, "two replicas", func() (bool, string) {
		n, all := 0, x.replicas(t)
		for i := range all {
			if all[i].ready() && (not == nil || !not(&all[i])) {
				n++
			}
		}
		return n == 2 && len(all) == 2, fmt.Sprintf("%+v", all)
	})
}

// reviews are how many mutating reviews a replica has answered.
func (p *pod) reviews(t *testing.T) float64 {
	t.Helper()
	n := 0.0
	for name, v := range p.metrics(t) {
		if strings.HasPrefix(name, "podkey_webhook_reviews_total{") && strings.Contains(name, `path="/mutate-v1-pod"`) {
			n += v
		}
	}
	return n
}

// metrics are those of a replica, by name and labels.
func (p *pod) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + net.JoinHostPort(p.Status.PodIP, "8095") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(text.String()) {
		i := strings.LastIndexByte(line, ' ')
		var v float64
		if _, err := fmt.Sscan(line[i+1:], &v); err == nil && !strings.HasPrefix(line, "#") {
			out[line[:i]] = v
		}
	}
	return out
}

// busiest is the replica that the API server calls: it keeps its connection.
func (x *world) busiest(t *testing.T) (most pod) {
	t.Helper()
	before := map[string]float64{}
	for _, p := range x.replicas(t) {
		before[p.Metadata.Name] = p.reviews(t)
	}
	eventually(t, "a replica answers", func() (bool, string) {
		top := 0.0
		for _, p := range x.replicas(t) {
			if n := p.reviews(t) - before[p.Metadata.Name]; n > top {
				top, most = n, p
			}
		}
		return top >= 20, fmt.Sprint(top)
	})
	return most
}

// TestWebhookReplicaLost takes away the replica that the API server is talking
// to, while pods are created.
//
// One that is deleted drains: no pod may be refused. One that is killed has no
// time to, and no webhook can spare those pods the refusal whose reviews it had
// in hand, or that are sent to it until the cluster knows that it is gone. It
// must be short, and no pod may slip through without its identity.
func TestWebhookReplicaLost(t *testing.T) {
	l := w.workload(t, "replica-lost", setup{})
	p := w.pump(t, l)
	for _, c := range []struct {
		what   string
		lose   func(pod) error
		gone   func(lost, now *pod) bool // whether this is not the lost one's successor
		outage time.Duration
	}{
		{"deleted", func(lost pod) error {
			status, answer, err := w.Do(t.Context(), http.MethodDelete, "/api/v1/namespaces/"+system+"/pods/"+lost.Metadata.Name, nil)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("HTTP %d: %s", status, answer)
			}
			return err
		}, func(lost, now *pod) bool { return now.Metadata.UID == lost.Metadata.UID }, 0},
		{"killed", func(lost pod) error { return w.KillContainer(t.Context(), system, lost.Metadata.Name, "webhook") },
			func(lost, now *pod) bool {
				return now.Metadata.UID == lost.Metadata.UID && now.Status.ContainerStatuses[0].RestartCount == lost.Status.ContainerStatuses[0].RestartCount
			}, 5 * time.Second},
	} {
		lost, at := w.busiest(t), time.Now()
		if err := c.lose(lost); err != nil {
			t.Fatal(err)
		}
		w.ready(t, func(now *pod) bool { return c.gone(&lost, now) })
		p.works(t, time.Now())
		p.judge(t, c.what, at, c.outage)
	}
}

// TestAPIServerRestarts kills the API server while pods are created. From the
// moment at which it is ready again, every pod is admitted with its identity,
// that of an account which the webhook has not seen yet included.
func TestAPIServerRestarts(t *testing.T) {
	l := w.workload(t, "api-restart", setup{})
	p := w.pump(t, l)
	p.works(t, time.Now())
	at := time.Now()
	if err := w.RestartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	fresh := w.workload(t, "api-restarted", setup{})
	if a := w.attempt(t.Context(), fresh); a.err != nil || a.bare {
		t.Errorf("a new account's pod after the restart: %v, without its identity: %t", a.err, a.bare)
	}
	p.works(t, back)
	t.Logf("the API server was away for %v", back.Sub(at).Round(time.Millisecond))
	p.judge(t, "during the restart", at, back.Sub(at))
	p.judge(t, "after the restart", back, 0)
}

// stored is the Secret's content in our own terms.
type stored struct {
	ca   *pki.CA
	leaf *tls.Certificate
}

// certificate makes what the webhook's Secret holds, by a CA of the test's.
func certificate(t *testing.T, now time.Time, lifetime time.Duration) stored {
	t.Helper()
	ca, err := pki.NewCA("somebody else's CA", now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Leaf{DNSNames: []string{"podkey-webhook." + system + ".svc"}, Lifetime: lifetime}, now)
	if err != nil {
		t.Fatal(err)
	}
	return stored{ca, leaf}
}

// put writes the Secret as a person would.
func (s stored) put(t *testing.T) {
	t.Helper()
	caKey, err := s.ca.MarshalKey()
	key, keyErr := x509.MarshalPKCS8PrivateKey(s.leaf.PrivateKey)
	if err := errors.Join(err, keyErr); err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	w.patch(t, "secret", "podkey-webhook-cert", "merge", fmt.Sprintf(`{"data": {"ca.crt": %q, "ca.key": %q, "tls.crt": %q, "tls.key": %q}}`,
		block("CERTIFICATE", s.ca.Cert.Raw), block("PRIVATE KEY", caKey), block("CERTIFICATE", s.leaf.Certificate[0]), block("PRIVATE KEY", key)))
}

func (x *world) patch(t *testing.T, kind, name, how, patch string) {
	t.Helper()
	if _, err := x.Kubectl(t.Context(), "", "-n", system, "patch", kind, name, "--type", how, "-p", patch); err != nil {
		t.Fatal(err)
	}
}

// bundle are the CAs that the API server knows the webhook by.
func (x *world) bundle(t *testing.T) []*x509.Certificate {
	t.Helper()
	b, err := x.Get(t.Context(), "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/podkey-webhook")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Webhooks []struct{ ClientConfig struct{ CABundle []byte } }
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return pki.Certificates(c.Webhooks[0].ClientConfig.CABundle)
}

// trusted is how a client calls a replica that trusts the registered CAs.
func (x *world) trusted(t *testing.T) *tls.Config {
	return &tls.Config{RootCAs: pool(x.bundle(t)), ServerName: "podkey-webhook." + system + ".svc"}
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// inOrder waits until both replicas serve one certificate, the stored one, by
// a CA, and the registered CAs cover it.
func (x *world) inOrder(t *testing.T, issuer *pki.CA) {
	t.Helper()
	eventually(t, "certificates are in order", func() (bool, string) {
		var secret struct{ Data map[string][]byte }
		b, err := x.Get(t.Context(), "/api/v1/namespaces/"+system+"/secrets/podkey-webhook-cert")
		if err == nil {
			err = json.Unmarshal(b, &secret)
		}
		if err != nil {
			return false, err.Error()
		}
		have := pki.Certificates(secret.Data["tls.crt"])
		if len(have) == 0 {
			return false, "the secret has no certificate"
		}
		ready := 0
		for _, p := range x.replicas(t) {
			if !p.ready() {
				continue
			}
			conn, err := tls.Dial("tcp", net.JoinHostPort(p.Status.PodIP, "9443"), x.trusted(t))
			if err != nil {
				return false, p.Metadata.Name + ": " + err.Error()
			}
			leaf := conn.ConnectionState().PeerCertificates[0]
			conn.Close()
			if !leaf.Equal(have[0]) {
				return false, p.Metadata.Name + " serves another certificate than the stored one"
			}
			if err := leaf.CheckSignatureFrom(issuer.Cert); err != nil {
				return false, p.Metadata.Name + " serves a certificate of another issuer: " + err.Error()
			}
			ready++
		}
		return ready == 2, fmt.Sprintf("%d replicas are ready", ready)
	})
}

// TestCertificatesSpoilt spoils the webhook's certificates in each way that a
// person, a tool or the calendar can, while pods are created. They mend
// themselves within seconds, and until then pods are refused rather than
// admitted without their identity.
func TestCertificatesSpoilt(t *testing.T) {
	l := w.workload(t, "certificates", setup{})
	now := time.Now()
	past := now.AddDate(0, 0, -100)
	other, strange := certificate(t, now, 0), certificate(t, now, 0)
	expired, older := certificate(t, past, 24*time.Hour), certificate(t, past, 24*time.Hour)
	bundle := func(value string) {
		for _, kind := range []string{"mutatingwebhookconfiguration", "validatingwebhookconfiguration"} {
			w.patch(t, kind, "podkey-webhook", "json", fmt.Sprintf(`[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": %q}]`, value))
		}
	}
	p := w.pump(t, l)
	p.works(t, time.Now())
	for _, c := range []struct {
		what   string
		spoil  func()
		outage time.Duration
		issuer *pki.CA // of what is served in the end
	}{
		{"the Secret has another CA and certificate", func() { other.put(t) }, 5 * time.Second, other.ca},
		{"the Secret is deleted", func() {
			if _, err := w.Kubectl(t.Context(), "", "-n", system, "delete", "secret", "podkey-webhook-cert"); err != nil {
				t.Fatal(err)
			}
		}, 0, other.ca}, // what it has issued is good, and registered
		{"the Secret has an expired certificate", func() { expired.put(t) }, 0, expired.ca},
		{"the CA bundle is a stranger's", func() { bundle(base64.StdEncoding.EncodeToString(strange.ca.CertPEM())) }, 5 * time.Second, expired.ca},
		{"the CA bundle is empty", func() { bundle("") }, 5 * time.Second, expired.ca},
		{"the certificate has expired before anybody looked", func() {
			// Nobody is there who could still serve what was good.
			if _, err := w.Kubectl(t.Context(), "", "-n", system, "scale", "deployment/podkey-webhook", "--replicas=0"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "no replica", func() (bool, string) { n := len(w.replicas(t)); return n == 0, fmt.Sprint(n) })
			older.put(t)
			bundle(base64.StdEncoding.EncodeToString(older.ca.CertPEM()))
			if _, err := w.Kubectl(t.Context(), "", "-n", system, "scale", "deployment/podkey-webhook", "--replicas=2"); err != nil {
				t.Fatal(err)
			}
		}, 30 * time.Second, older.ca},
	} {
		at := time.Now()
		c.spoil()
		w.inOrder(t, c.issuer)
		p.works(t, time.Now())
		p.judge(t, c.what, at, c.outage)
	}
}
