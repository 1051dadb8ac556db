package webhook

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/podkey/podkey/internal/pki"
)

const (
	testNamespace = "podkey-system"
	testName      = "podkey-webhook"
	secretKey     = "secrets/" + testNamespace + "/podkey-webhook-cert"
	mutatingKey   = "mutatingwebhookconfigurations/" + testName
	validatingKey = "validatingwebhookconfigurations/" + testName
	host          = testName + "." + testNamespace + ".svc"
)

var day0 = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func hook(name, service string) object {
	return object{"name": name, "clientConfig": object{"service": object{"namespace": testNamespace, "name": service, "port": 443}}}
}

func configuration() object {
	return object{"webhooks": []any{hook("mutation.azure-workload-identity.io", testName), hook("theirs.example", "theirs")}}
}

// bundleIn is the CA bundle of the i-th webhook of a configuration.
func bundleIn(o object, i int) []byte {
	if o == nil {
		return nil
	}
	hooks, _ := o["webhooks"].([]any)
	s, _ := hooks[i].(object)["clientConfig"].(object)["caBundle"].(string)
	b, _ := base64.StdEncoding.DecodeString(s)
	return b
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// simulated is a keeper whose caches the test fills, so that it can be as far
// behind as the test likes.
type simulated struct {
	*keeper
	wake time.Time
}

func (s *simulated) follow(api *apiServer) {
	for key, one := range map[string]*single{secretKey: s.secret, mutatingKey: s.mutating, validatingKey: s.validating} {
		if o := api.get(key); o != nil {
			_ = one.store.Replace([]any{&unstructured.Unstructured{Object: o}}, "")
		} else {
			_ = one.store.Replace(nil, "")
		}
	}
}

// TestNoGapInTrust lets three replicas that see everything late, and an API
// server that follows the configurations late, live through twelve years with
// renewals, Secrets that are deleted, whereupon the CA is rotated, and one that
// is replaced by hand. At no moment may the API server refuse what a replica serves.
func TestNoGapInTrust(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func simulate(t *testing.T, rnd *rand.Rand) {
	api := newAPIServer(t)
	api.put(mutatingKey, configuration())
	api.put(validatingKey, configuration())
	now := day0
	var replicas []*simulated
	client, err := dynamic.NewForConfig(api.config())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c := Config{
			Namespace: testNamespace, Service: testName, Secret: "podkey-webhook-cert", Configuration: testName,
			Log: discard(), Now: func() time.Time { return now },
		}
		replicas = append(replicas, &simulated{keeper: newKeeper(client, c, nil, newMetrics(prometheus.NewRegistry()))})
	}

	// What the API server goes by, and since when it has been behind.
	var trusted [2][]byte
	behind, written := day0, day0
	var seenVersion int
	leaves, cas, accepted := map[string]bool{}, map[string]bool{}, map[string]bool{}
	deleteAt := []time.Time{day0.AddDate(2, 0, 0), day0.AddDate(4, 0, 0)}
	// At six years, somebody puts another CA and certificate into the Secret.
	// No time to settle is possible then; the API server is not behind.
	replaceAt, prompt := day0.AddDate(6, 0, 0), time.Time{}
	checked := 0
	for steps := 0; now.Before(day0.AddDate(12, 0, 0)); steps++ {
		if steps > 50_000 {
			t.Fatalf("still at %s: somebody writes without end", now)
		}
		if len(deleteAt) > 0 && now.After(deleteAt[0]) {
			api.remove(secretKey)
			deleteAt = deleteAt[1:]
		}
		if !replaceAt.IsZero() && now.After(replaceAt) {
			replaceSecret(t, api, mustNext(t, material{}, nil, now, never).m)
			replaceAt, prompt = time.Time{}, now.Add(20*time.Minute)
		}
		r := replicas[rnd.IntN(len(replicas))]
		if rnd.IntN(3) > 0 {
			r.follow(api)
		}
		wake, err := r.look(t.Context())
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			t.Fatalf("at %s: %v", now, err)
		}
		r.wake = wake
		api.mu.Lock()
		version := api.version
		api.mu.Unlock()
		if version != seenVersion {
			seenVersion, written = version, now
		}
		if rnd.IntN(4) == 0 || now.Sub(behind) > time.Minute || now.Before(prompt) {
			trusted = [2][]byte{bundleIn(api.get(mutatingKey), 0), bundleIn(api.get(validatingKey), 0)}
			behind = now
		}
		for i, r := range replicas {
			m := r.serving.Load()
			if m == nil || len(trusted[0]) == 0 || len(trusted[1]) == 0 {
				continue // the very beginning
			}
			checked++
			leaves[string(m.leaf.Certificate[0])] = true
			for _, bundle := range trusted {
				pair := string(m.leaf.Certificate[0]) + string(bundle)
				if !accepted[pair] {
					accepted[pair] = rootOf(m.leaf, pki.Certificates(bundle), host, now) != nil
				}
				if !accepted[pair] || !now.Before(m.leaf.Leaf.NotAfter) {
					t.Fatalf("step %d, %s: the API server refuses replica %d", steps, now, i)
				}
			}
		}
		for _, c := range pki.Certificates(bundleIn(api.get(mutatingKey), 0)) {
			cas[string(c.Raw)] = true
		}
		// Small steps while something is going on and for as long as anybody
		// may be behind, and a jump to the next appointment otherwise.
		now = now.Add(time.Duration(rnd.Int64N(int64(30 * time.Second))))
		if now.Sub(written) > 15*time.Minute {
			for _, r := range replicas {
				r.follow(api)
			}
			next := slices.MinFunc(replicas, func(a, b *simulated) int { return a.wake.Compare(b.wake) }).wake
			if len(deleteAt) > 0 && deleteAt[0].Before(next) {
				next = deleteAt[0]
			}
			if !replaceAt.IsZero() && replaceAt.Before(next) {
				next = replaceAt
			}
			if next.After(now) {
				now = next
			}
			written = now
		}
	}
	// The first CA, one after each deletion, and the one put there; a leaf is
	// served for 275 days.
	if len(cas) != 4 || len(leaves) < 12 || checked == 0 {
		t.Errorf("%d CAs and %d leaves in twelve years: nothing happened", len(cas), len(leaves))
	}
	if got := len(pki.Certificates(bundleIn(api.get(mutatingKey), 0))); got != 1 {
		t.Errorf("%d CAs are registered in the end: old ones stay", got)
	}
	if b := bundleIn(api.get(mutatingKey), 1); len(b) > 0 {
		t.Error("somebody else's webhook was given our CA bundle")
	}
}

// replaceSecret puts material into the Secret as an administrator would.
func replaceSecret(t testing.TB, api *apiServer, m material) {
	t.Helper()
	data, err := m.data()
	if err != nil {
		t.Fatal(err)
	}
	api.change(secretKey, func(o object) {
		for k, v := range data {
			o["data"].(object)[k] = base64.StdEncoding.EncodeToString(v)
		}
	})
}

func testPolicy() policy { return defaultPolicy(testName, testNamespace) }

func never(*x509.Certificate) bool  { return false }
func always(*x509.Certificate) bool { return true }

func mustNext(t *testing.T, stored material, served *material, now time.Time, registered func(*x509.Certificate) bool) step {
	t.Helper()
	s, err := testPolicy().next(stored, served, now, registered)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stored(t *testing.T, m material) material {
	t.Helper()
	data, err := m.data()
	if err != nil {
		t.Fatal(err)
	}
	return readMaterial(data)
}

func TestFirstCertificate(t *testing.T) {
	s := mustNext(t, material{}, nil, day0, never)
	if !s.write || s.m.root(host, day0) == nil || s.m.root(host+".cluster.local", day0) == nil {
		t.Fatalf("no certificate for our names: %+v", s.why)
	}
	if got := s.m.leaf.Leaf.NotAfter.Sub(day0); got != 365*24*time.Hour {
		t.Errorf("the certificate is valid for %v", got)
	}
	again := mustNext(t, stored(t, s.m), nil, day0.Add(time.Hour), never)
	if again.write {
		t.Errorf("what was just written is written again: %v", again.why)
	}
	if want := s.m.leaf.Leaf.NotAfter.AddDate(0, 0, -90); !again.wake.Equal(want) {
		t.Errorf("the next look is at %s, not 90 days before the end, %s", again.wake, want)
	}
}

func TestRenewalKeepsTheCA(t *testing.T) {
	first := stored(t, mustNext(t, material{}, nil, day0, never).m)
	due := first.leaf.Leaf.NotAfter.AddDate(0, 0, -90)
	if s := mustNext(t, first, nil, due.Add(-time.Second), never); s.write {
		t.Errorf("renewed a second early: %v", s.why)
	}
	s := mustNext(t, first, nil, due, never)
	if !s.leaf || s.newCA || len(s.m.roots) != 1 || !s.m.roots[0].Equal(first.roots[0]) {
		t.Errorf("at 90 days before the end: leaf %v, new CA %v, %d CAs", s.leaf, s.newCA, len(s.m.roots))
	}
}

func TestRotationInThreeSteps(t *testing.T) {
	first := stored(t, mustNext(t, material{}, nil, day0, never).m)
	end := first.ca.Cert.NotAfter
	// Renewals up to there are not what this is about.
	leaf, err := first.ca.Issue(pki.Leaf{DNSNames: testPolicy().names, Lifetime: 365 * 24 * time.Hour}, end.AddDate(0, 0, -150))
	if err != nil {
		t.Fatal(err)
	}
	first.leaf = leaf
	now := end.AddDate(0, 0, -120)

	one := mustNext(t, first, &first, now, never)
	if !one.newCA || one.leaf || len(one.m.roots) != 2 || !one.m.roots[1].Equal(first.roots[0]) {
		t.Fatalf("first: new CA %v, new leaf %v, %d CAs", one.newCA, one.leaf, len(one.m.roots))
	}
	if two := mustNext(t, stored(t, one.m), nil, now.Add(time.Minute), always); two.write {
		t.Errorf("a leaf of a CA that is a minute old: %v", two.why)
	}
	settled := now.Add(11 * time.Minute)
	if two := mustNext(t, stored(t, one.m), nil, settled, never); two.write {
		t.Errorf("a leaf of a CA that is not registered: %v", two.why)
	}
	two := mustNext(t, stored(t, one.m), nil, settled, always)
	if !two.leaf || two.newCA || len(two.m.roots) != 2 {
		t.Fatalf("second: leaf %v, CAs %d: %v", two.leaf, len(two.m.roots), two.why)
	}
	if three := mustNext(t, stored(t, two.m), nil, settled.Add(23*time.Hour), always); three.write {
		t.Errorf("the old CA is dropped while replicas may serve its leaf: %v", three.why)
	}
	three := mustNext(t, stored(t, two.m), nil, settled.Add(25*time.Hour), always)
	if !three.write || len(three.m.roots) != 1 || !three.m.roots[0].Equal(one.m.ca.Cert) {
		t.Errorf("third: %d CAs: %v", len(three.m.roots), three.why)
	}
}

func TestDeletedSecretKeepsWhatIsServed(t *testing.T) {
	first := mustNext(t, material{}, nil, day0, never).m
	s := mustNext(t, material{}, &first, day0.Add(time.Hour), always)
	if !s.newCA || s.leaf || len(s.m.roots) != 2 || !slices.Equal(s.m.leaf.Certificate[0], first.leaf.Certificate[0]) {
		t.Errorf("new CA %v, new leaf %v, %d CAs", s.newCA, s.leaf, len(s.m.roots))
	}
}

func TestSpoiltSecretIsRepaired(t *testing.T) {
	good := mustNext(t, material{}, nil, day0, never).m
	other := mustNext(t, material{}, nil, day0, never).m
	narrow, err := pki.NewCA("narrow", day0, "example.com")
	if err != nil {
		t.Fatal(err)
	}
	goodData, err := good.data()
	if err != nil {
		t.Fatal(err)
	}
	otherData, err := other.data()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(map[string][]byte){
		"empty":                    func(d map[string][]byte) { clear(d) },
		"garbage":                  func(d map[string][]byte) { d[caCertKey], d[tlsCertKey] = []byte("x"), []byte("y") },
		"a key of another":         func(d map[string][]byte) { d[tlsKeyKey] = otherData[tlsKeyKey] },
		"a CA of another":          func(d map[string][]byte) { d[caCertKey] = otherData[caCertKey] },
		"no leaf":                  func(d map[string][]byte) { delete(d, tlsCertKey) },
		"a CA for other names":     func(d map[string][]byte) { useCA(t, d, narrow); delete(d, tlsCertKey) },
		"a CA key of another":      func(d map[string][]byte) { d[caKeyKey] = otherData[caKeyKey]; delete(d, tlsCertKey) },
		"a private key as the CA":  func(d map[string][]byte) { d[caCertKey] = d[caKeyKey] },
		"a serving cert as the CA": func(d map[string][]byte) { d[caCertKey] = d[tlsCertKey]; delete(d, tlsKeyKey) },
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string][]byte{}
			for k, v := range goodData {
				data[k] = v
			}
			spoil(data)
			for _, served := range []*material{nil, &good} {
				s := mustNext(t, readMaterial(data), served, day0.Add(time.Hour), always)
				if s.m.root(host, day0.Add(time.Hour)) == nil || s.m.ca == nil {
					t.Errorf("served %v: not repaired: %v", served != nil, s.why)
				}
				again := mustNext(t, stored(t, s.m), &s.m, day0.Add(time.Hour), always)
				if again.write {
					t.Errorf("served %v: what was just repaired is written again: %v", served != nil, again.why)
				}
			}
		})
	}
}

func useCA(t *testing.T, d map[string][]byte, ca *pki.CA) {
	data, err := material{roots: []*x509.Certificate{ca.Cert}, ca: ca}.data()
	if err != nil {
		t.Fatal(err)
	}
	d[caCertKey], d[caKeyKey] = data[caCertKey], data[caKeyKey]
}

// A certificate that somebody put there without the CA's key is theirs, until
// it has to be replaced.
func TestForeignCertificateIsLeftAlone(t *testing.T) {
	m := mustNext(t, material{}, nil, day0, never).m
	m.ca = nil
	if s := mustNext(t, stored(t, m), nil, day0.Add(time.Hour), always); s.write {
		t.Errorf("changed: %v", s.why)
	}
	if s := mustNext(t, stored(t, m), nil, m.leaf.Leaf.NotAfter.AddDate(0, 0, -90), always); !s.newCA {
		t.Error("it runs out, and nobody makes another")
	}
}
