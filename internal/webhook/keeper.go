package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/podkey/podkey/internal/pki"
)

// fieldManager is who the API server notes as the owner of what we write.
const fieldManager = "podkey-webhook"

// lookEvery is how often certificates are looked at when nothing happens. It
// costs the parsing of a few certificates and no request.
const lookEvery = time.Minute

// keeper keeps the serving certificate, the Secret and the CA bundles of the
// configurations in order. One goroutine ([keeper.run]) compares what is with
// what should be whenever something changes or a time comes; nothing is
// remembered about what happened, so a missed event or a failed write is made
// good by the next look.
type keeper struct {
	config  Config
	log     *slog.Logger
	policy  policy
	metrics *metrics

	files      *pki.FileSource // supplied certificate; then secret is nil
	secret     *single
	mutating   *single
	validating *single

	serving atomic.Pointer[material]
	kick    chan struct{}
	extra   map[string]time.Time // since when a registered CA has been nobody's, by its DER; of run alone

	seenMu sync.Mutex
	seen   bool  // whether the mutating configuration was ever seen
	last   error // of the last look

	observe func() // test hook: called after each look; nil otherwise
}

func newKeeper(client dynamic.Interface, c Config, files *pki.FileSource, m *metrics) *keeper {
	k := &keeper{
		config: c, log: c.Log, policy: defaultPolicy(c.Service, c.Namespace), metrics: m,
		files: files, kick: make(chan struct{}, 1), extra: map[string]time.Time{},
	}
	if files == nil {
		k.secret = newSingle(client, secretsGVR, c.Namespace, c.Secret, k.changed)
	}
	k.mutating = newSingle(client, mutatingGVR, "", c.Configuration, k.changed)
	k.validating = newSingle(client, validatingGVR, "", c.Configuration, k.changed)
	return k
}

// changed asks for a look.
func (k *keeper) changed() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// getCertificate is for [tls.Config].
func (k *keeper) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if k.files != nil {
		return k.files.GetCertificate(hello)
	}
	if m := k.serving.Load(); m != nil {
		return m.leaf, nil
	}
	return nil, errors.New("there is no serving certificate yet")
}

func (k *keeper) synced() bool {
	return (k.secret == nil || k.secret.synced()) && k.mutating.synced() && k.validating.synced()
}

// registrations are the two configurations as last seen.
func (k *keeper) registrations() []registration {
	return []registration{
		{"MutatingWebhookConfiguration", k.mutating},
		{"ValidatingWebhookConfiguration", k.validating},
	}
}

// run looks until ctx ends.
func (k *keeper) run(ctx context.Context) {
	var followers sync.WaitGroup
	defer followers.Wait()
	for _, s := range []*single{k.secret, k.mutating, k.validating} {
		if s != nil {
			followers.Go(func() { s.controller.RunWithContext(ctx) })
		}
	}
	for _, s := range []*single{k.secret, k.mutating, k.validating} {
		if s == nil {
			continue
		}
		select {
		case <-s.controller.HasSyncedChecker().Done():
		case <-ctx.Done():
			return
		}
	}
	backoff := time.Second
	for {
		wake, err := k.look(ctx)
		wait := min(max(wake.Sub(k.config.Now()), time.Second), lookEvery)
		switch {
		case ctx.Err() != nil:
			return
		case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
			// Another replica was faster. What it wrote is read at the
			// next look, from the API server itself.
			wait, err = k.jitter()+10*time.Millisecond, nil
		case err != nil:
			k.metrics.failures.Inc()
			k.log.Error("certificates or their registration could not be kept in order, trying again", "error", err, "in", backoff)
			wait = backoff
			backoff = min(2*backoff, 30*time.Second)
		default:
			backoff = time.Second
		}
		k.note(err)
		if k.observe != nil {
			k.observe()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-k.kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (k *keeper) note(err error) {
	k.seenMu.Lock()
	defer k.seenMu.Unlock()
	k.last = err
	k.seen = k.seen || k.mutating.get() != nil
}

// state is for readiness: whether the mutating configuration was ever seen,
// and what went wrong last.
func (k *keeper) state() (seen bool, last error) {
	k.seenMu.Lock()
	defer k.seenMu.Unlock()
	return k.seen, k.last
}

func (k *keeper) jitter() time.Duration {
	if k.config.Jitter <= 0 {
		return 0
	}
	return rand.N(k.config.Jitter)
}

// pause lets another replica go first.
func (k *keeper) pause(ctx context.Context) error {
	d := k.jitter()
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// look compares and repairs once, and says when to look again.
func (k *keeper) look(ctx context.Context) (wake time.Time, err error) {
	wake = k.config.Now().Add(lookEvery)
	if k.files != nil {
		return wake, nil // certificate and CA bundle are somebody else's
	}
	stored, wake, err := k.keepSecret(ctx)
	if err != nil {
		return wake, err
	}
	var due []registration
	for _, r := range k.registrations() {
		if k.needsBundle(r.single.get(), stored) {
			due = append(due, r)
		}
	}
	if len(due) == 0 {
		return wake, nil
	}
	if err := k.pause(ctx); err != nil {
		return wake, err
	}
	var errs []error
	for _, r := range due {
		errs = append(errs, k.register(ctx, r))
	}
	return wake, errors.Join(errs...)
}

// keepSecret brings the Secret into order and serves what it holds.
func (k *keeper) keepSecret(ctx context.Context) (material, time.Time, error) {
	now := k.config.Now()
	stored := readMaterial(secretData(k.secret.get()))
	s, err := k.policy.next(stored, k.serving.Load(), now, k.registered)
	if err != nil {
		return stored, now, err
	}
	if s.write {
		if err := k.pause(ctx); err != nil {
			return stored, now, err
		}
		if s, err = k.writeSecret(ctx); err != nil {
			return stored, now, err
		}
	}
	k.serve(s.m, k.config.Now())
	return s.m, s.wake, nil
}

// writeSecret decides again on what the API server has now, and writes that
// at the version that was read.
func (k *keeper) writeSecret(ctx context.Context) (step, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	obj, err := k.secret.client.Get(ctx, k.config.Secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		obj, err = nil, nil
	}
	if err != nil {
		return step{}, fmt.Errorf("read secret %s: %w", k.config.Secret, err)
	}
	s, err := k.policy.next(readMaterial(secretData(obj)), k.serving.Load(), k.config.Now(), k.registered)
	if err != nil || !s.write {
		return s, err
	}
	data, err := s.m.data()
	if err != nil {
		return s, err
	}
	encoded := map[string]any{}
	for name, v := range data {
		encoded[name] = base64.StdEncoding.EncodeToString(v)
	}
	if obj == nil {
		_, err = k.secret.client.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
			"metadata": map[string]any{"name": k.config.Secret, "namespace": k.config.Namespace},
			"data":     encoded,
		}}, metav1.CreateOptions{FieldManager: fieldManager})
	} else {
		obj = obj.DeepCopy()
		old, _, _ := unstructured.NestedMap(obj.Object, "data")
		for name, v := range encoded {
			if old == nil {
				old = map[string]any{}
			}
			old[name] = v
		}
		obj.Object["data"] = old
		_, err = k.secret.client.Update(ctx, obj, metav1.UpdateOptions{FieldManager: fieldManager})
	}
	if err != nil {
		return s, fmt.Errorf("write secret %s: %w", k.config.Secret, err)
	}
	if s.newCA {
		k.metrics.renewals.WithLabelValues("ca").Inc()
	}
	if s.leaf {
		k.metrics.renewals.WithLabelValues("serving").Inc()
	}
	k.log.Info("certificates written", "secret", k.config.Secret, "why", s.why,
		"cas", len(s.m.roots), "notAfter", s.m.leaf.Leaf.NotAfter)
	return s, nil
}

func secretData(obj *unstructured.Unstructured) map[string][]byte {
	if obj == nil {
		return nil
	}
	out := map[string][]byte{}
	data, _, _ := unstructured.NestedMap(obj.Object, "data")
	for name, v := range data {
		s, _ := v.(string)
		if b, err := base64.StdEncoding.DecodeString(s); err == nil {
			out[name] = b
		}
	}
	return out
}

// serve takes up stored material. One whose CA is not registered yet has to
// wait while the present one is good and registered; that is so when the
// Secret was replaced by hand.
func (k *keeper) serve(m material, now time.Time) {
	name := k.policy.names[0]
	root := m.root(name, now)
	if root == nil {
		return
	}
	old := k.serving.Load()
	if old != nil && bytes.Equal(old.leaf.Certificate[0], m.leaf.Certificate[0]) {
		k.serving.Store(&m)
		return
	}
	if old != nil && !k.registered(root) {
		if r := old.root(name, now); r != nil && k.registered(r) {
			return
		}
	}
	k.serving.Store(&m)
	k.log.Info("serving certificate taken up", "notAfter", m.leaf.Leaf.NotAfter, "issuedBy", root.Subject.CommonName)
}

// registered reports whether every entry of ours in the configurations, as
// last seen, has the CA.
func (k *keeper) registered(ca *x509.Certificate) bool {
	for _, r := range k.registrations() {
		for _, e := range k.entries(r.single.get()) {
			if !contains(pki.Certificates(e.bundle), ca) {
				return false
			}
		}
	}
	return true
}

// registration is a configuration of one of the two kinds.
type registration struct {
	kind   string
	single *single
}

// entry is one webhook of a configuration that calls our service.
type entry struct {
	index  int
	name   string
	bundle []byte // PEM
}

// entries finds the webhooks that are ours by the service that they call:
// their names are the operator's choice, and somebody else's webhook in the
// same configuration is none of our business.
func (k *keeper) entries(obj *unstructured.Unstructured) []entry {
	if obj == nil {
		return nil
	}
	hooks, _, _ := unstructured.NestedSlice(obj.Object, "webhooks")
	var out []entry
	for i, h := range hooks {
		hook, ok := h.(map[string]any)
		if !ok {
			continue
		}
		ns, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "namespace")
		svc, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "name")
		if ns != k.config.Namespace || svc != k.config.Service {
			continue
		}
		encoded, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle")
		bundle, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			bundle = nil
		}
		name, _, _ := unstructured.NestedString(hook, "name")
		out = append(out, entry{i, name, bundle})
	}
	return out
}

// wanted are the CAs that must be registered: those of the Secret, and the
// one behind what is served, while the two differ.
func (k *keeper) wanted(stored material) []*x509.Certificate {
	want := stored.roots
	if m := k.serving.Load(); m != nil {
		if r := m.root(k.policy.names[0], k.config.Now()); r != nil && !contains(want, r) {
			want = append(want[:len(want):len(want)], r)
		}
	}
	return want
}

// bundle is what an entry's CA bundle should be. A CA that we do not want may
// be one that another replica still serves with: it stays until it has been
// nobody's for as long as replicas may take to follow.
func (k *keeper) bundle(e entry, stored material) []byte {
	now := k.config.Now()
	want := k.wanted(stored)
	var out []byte
	for _, c := range want {
		out = append(out, pki.EncodeCertificates(c.Raw)...)
	}
	have := pki.Certificates(e.bundle)
	missing := false
	for _, c := range want {
		missing = missing || !contains(have, c)
	}
	stale := false
	for _, c := range have {
		if contains(want, c) {
			delete(k.extra, string(c.Raw))
			continue
		}
		since, ok := k.extra[string(c.Raw)]
		if !ok {
			since = now
			k.extra[string(c.Raw)] = now
		}
		if now.Before(since.Add(k.policy.settle)) && now.Before(c.NotAfter) {
			out = append(out, pki.EncodeCertificates(c.Raw)...)
		} else {
			stale = true
		}
	}
	if !missing && !stale {
		return e.bundle // the same CAs, perhaps in another order
	}
	return out
}

// needsBundle reports whether an entry of the configuration is to be changed.
func (k *keeper) needsBundle(obj *unstructured.Unstructured, stored material) bool {
	for _, e := range k.entries(obj) {
		if !bytes.Equal(e.bundle, k.bundle(e, stored)) {
			return true
		}
	}
	return false
}

// register writes the CA bundle into our entries of a configuration. The
// configuration is read before the Secret: if another replica puts a newer
// bundle in afterwards, the version that we write at is out of date, and if
// before, then so was the newer Secret, and we have read it.
func (k *keeper) register(ctx context.Context, r registration) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	obj, err := r.single.client.Get(ctx, k.config.Configuration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // deleted meanwhile; its successor will be an event
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", r.kind, k.config.Configuration, err)
	}
	secret, err := k.secret.client.Get(ctx, k.config.Secret, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read secret %s: %w", k.config.Secret, err)
	}
	stored := readMaterial(secretData(secret))
	hooks, _, _ := unstructured.NestedSlice(obj.Object, "webhooks")
	var names []string
	for _, e := range k.entries(obj) {
		want := k.bundle(e, stored)
		if len(want) == 0 || bytes.Equal(e.bundle, want) {
			continue
		}
		encoded := base64.StdEncoding.EncodeToString(want)
		if err := unstructured.SetNestedField(hooks[e.index].(map[string]any), encoded, "clientConfig", "caBundle"); err != nil {
			return fmt.Errorf("write %s %s: %w", r.kind, k.config.Configuration, err)
		}
		names = append(names, e.name)
	}
	if len(names) == 0 {
		return nil // another replica was faster
	}
	if err := unstructured.SetNestedSlice(obj.Object, hooks, "webhooks"); err != nil {
		return fmt.Errorf("write %s %s: %w", r.kind, k.config.Configuration, err)
	}
	if _, err := r.single.client.Update(ctx, obj, metav1.UpdateOptions{FieldManager: fieldManager}); err != nil {
		return fmt.Errorf("write %s %s: %w", r.kind, k.config.Configuration, err)
	}
	k.metrics.registrations.Inc()
	k.log.Info("CA bundle registered", "kind", r.kind, "configuration", k.config.Configuration, "webhooks", names)
	return nil
}
