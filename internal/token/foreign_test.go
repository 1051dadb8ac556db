package token_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/token"
)

// idp is a foreign identity provider over https on this machine, reached by
// the name example.com, which its certificate has.
type idp struct {
	t      testing.TB
	server *httptest.Server
	issuer string
	clock  *clock

	fetches atomic.Int32 // of the discovery document
	mu      sync.Mutex
	keys    map[string]*rsa.PrivateKey // by kid
	handler http.HandlerFunc           // answers instead, if set
}

func newIDP(t testing.TB) *idp {
	p := &idp{t: t, clock: newClock(), keys: map[string]*rsa.PrivateKey{"k1": sharedRSA()}}
	p.server = httptest.NewTLSServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.server.Close)
	_, port, err := net.SplitHostPort(p.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p.issuer = "https://example.com:" + port + "/tenant/"
	return p
}

func (p *idp) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
		p.fetches.Add(1)
	}
	p.mu.Lock()
	h := p.handler
	p.mu.Unlock()
	if h != nil {
		h(w, r)
		return
	}
	p.good(w, r)
}

// good serves what an identity provider should, and as strictly as Kubernetes:
// a document is only for who takes its media type.
func (p *idp) good(w http.ResponseWriter, r *http.Request) {
	kind := "application/json"
	if r.URL.Path == "/tenant/keys" {
		kind = "application/jwk-set+json"
	}
	if !strings.Contains(r.Header.Get("Accept"), kind) {
		http.Error(w, "only "+kind+" is served", http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", kind)
	switch r.URL.Path {
	case "/tenant/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"response_types_supported":["id_token"]}`, p.issuer, p.issuer+"keys")
	case "/tenant/keys":
		_, _ = w.Write([]byte(p.jwks()))
	default:
		http.NotFound(w, r)
	}
}

func (p *idp) jwks() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	set := jose.JSONWebKeySet{}
	for kid, key := range p.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid, Algorithm: "RS256", Use: "sig"})
	}
	return encode(p.t, set)
}

// answer replaces what the provider serves; nil restores it.
func (p *idp) answer(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

func (p *idp) setKeys(keys map[string]*rsa.PrivateKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

// foreign returns a Foreign that may reach the provider.
func (p *idp) foreign() *token.Foreign {
	roots := x509.NewCertPool()
	roots.AddCert(p.server.Certificate())
	return &token.Foreign{
		Now: p.clock.now, AllowLoopback: true, RootCAs: roots,
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
	}
}

// check verifies a token signed by the provider's key (or another) under kid.
func (p *idp) check(f *token.Foreign, kid string) error {
	p.t.Helper()
	return verifyToken(p.t, f, signRS256(p.t, sharedRSA(), kid, clusterClaims(p.issuer)))
}

func verifyToken(t testing.TB, f *token.Foreign, raw string) error {
	t.Helper()
	a, err := token.ParseAssertion(raw)
	if err != nil {
		t.Fatal(err)
	}
	return f.VerifyAssertion(t.Context(), a)
}

// kindOf returns the kind of a refusal, 0 for none.
func kindOf(t testing.TB, err error) token.ForeignKind {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*token.ForeignError](err)
	if !ok {
		t.Fatalf("not a ForeignError: %v", err)
	}
	if e.Error() == "" || e.Issuer == "" {
		t.Errorf("the refusal says nothing: %#v", e)
	}
	return e.Kind
}

func expectKind(t *testing.T, what string, err error, want token.ForeignKind) {
	t.Helper()
	if got := kindOf(t, err); got != want {
		t.Errorf("%s: kind %d, want %d (%v)", what, got, want, err)
	}
}

// eventually waits for something that another goroutine is about to do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("never happened: " + what)
		}
	}
}

func TestForeignFetchesOnceAndRemembers(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	for range 5 {
		expectKind(t, "good", p.check(f, "k1"), 0)
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
	raw := signRS256(t, mustRSA(2048), "k1", clusterClaims(p.issuer))
	for range 2 {
		expectKind(t, "another's signature", verifyToken(t, f, raw), token.BadForeign)
	}
}

func TestForeignAcceptsIssuersWithAndWithoutSlash(t *testing.T) {
	p := newIDP(t)
	p.issuer = strings.TrimSuffix(p.issuer, "/")
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/tenant/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.issuer, p.issuer+"/keys?v=1")
		case "/tenant/keys":
			_, _ = w.Write([]byte(p.jwks()))
		}
	})
	expectKind(t, "no slash", p.check(p.foreign(), "k1"), 0)
	p.issuer += "/"
	expectKind(t, "a slash more than the document has", p.check(p.foreign(), "k1"), token.Unparsable)
}

func TestForeignUsesRegisteredKeysAndNothingElse(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	other := mustRSA(2048)
	set := &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &other.PublicKey, KeyID: "pinned"}}}
	var broken error
	f.Registered = func(_ context.Context, issuer string) (*jose.JSONWebKeySet, bool, error) {
		return set, issuer == p.issuer, broken
	}
	expectKind(t, "pinned key", verifyToken(t, f, signRS256(t, other, "pinned", clusterClaims(p.issuer))), 0)
	expectKind(t, "published but not pinned", p.check(f, "k1"), token.NoKey)
	expectKind(t, "wrong key under a pinned name", p.check(f, "pinned"), token.BadForeign)
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("%d fetches", n)
	}
	// A token that was right is refused once its key is no longer registered,
	// or another has its name.
	raw := signRS256(t, other, "pinned", clusterClaims(p.issuer))
	set = &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &sharedRSA().PublicKey, KeyID: "pinned"}}}
	expectKind(t, "replaced key", verifyToken(t, f, raw), token.BadForeign)
	set = &jose.JSONWebKeySet{}
	expectKind(t, "removed key", verifyToken(t, f, raw), token.NoKey)
	set = nil
	expectKind(t, "no set", verifyToken(t, f, raw), token.NoKey)
	broken = errors.New("store is down")
	if err := verifyToken(t, f, raw); !errors.Is(err, broken) {
		t.Errorf("failure of Registered: %v", err)
	}
}

func TestForeignRegisteredKeysMustBeUsable(t *testing.T) {
	good, weak := sharedRSA(), mustRSA(1024)
	other := mustRSA(2048)
	huge := &rsa.PublicKey{N: new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 8200), big.NewInt(1)), E: 65537}
	even := &rsa.PublicKey{N: good.N, E: 65536}
	for _, c := range []struct {
		name string
		keys []jose.JSONWebKey
		want token.ForeignKind
	}{
		{"good", []jose.JSONWebKey{{Key: &good.PublicKey, KeyID: "k", Use: "sig", Algorithm: "RS256"}}, 0},
		{"bare", []jose.JSONWebKey{{Key: &good.PublicKey, KeyID: "k"}}, 0},
		{"twice", []jose.JSONWebKey{{Key: &good.PublicKey, KeyID: "k"}, {Key: &good.PublicKey, KeyID: "k"}}, 0},
		{"beside an unusable one of its name", []jose.JSONWebKey{{Key: &other.PublicKey, KeyID: "k", Use: "enc"}, {Key: &good.PublicKey, KeyID: "k"}}, 0},
		{"two of a name", []jose.JSONWebKey{{Key: &good.PublicKey, KeyID: "k"}, {Key: &other.PublicKey, KeyID: "k"}}, token.NoKey},
		{"for encryption", []jose.JSONWebKey{{Key: &good.PublicKey, KeyID: "k", Use: "enc"}}, token.NoKey},
		{"for RS512", []jose.JSONWebKey{{Key: &good.PublicKey, KeyID: "k", Algorithm: "RS512"}}, token.NoKey},
		{"private", []jose.JSONWebKey{{Key: good, KeyID: "k"}}, token.NoKey},
		{"symmetric", []jose.JSONWebKey{{Key: []byte("secret"), KeyID: "k"}}, token.NoKey},
		{"weak", []jose.JSONWebKey{{Key: &weak.PublicKey, KeyID: "k"}}, token.NoKey},
		{"huge", []jose.JSONWebKey{{Key: huge, KeyID: "k"}}, token.NoKey},
		{"even exponent", []jose.JSONWebKey{{Key: even, KeyID: "k"}}, token.NoKey},
		{"nameless", []jose.JSONWebKey{{Key: &good.PublicKey}}, token.NoKey},
	} {
		f := &token.Foreign{Registered: func(context.Context, string) (*jose.JSONWebKeySet, bool, error) {
			return &jose.JSONWebKeySet{Keys: c.keys}, true, nil
		}}
		expectKind(t, c.name, verifyToken(t, f, signRS256(t, good, "k", clusterClaims("https://issuer.test/"))), c.want)
	}
}

func TestForeignAcceptsRS256Only(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	claims := encode(t, clusterClaims(p.issuer))
	for _, alg := range []string{"none", "None", "HS256", "RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256", "RS256 "} {
		raw := sealRS256(t, sharedRSA(), `{"alg":`+encode(t, alg)+`,"kid":"k1"}`, claims)
		expectKind(t, alg, verifyToken(t, f, raw), token.BadAlgorithm)
	}
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("%d fetches for tokens that cannot be accepted", n)
	}
}

func TestForeignTokensWithoutKid(t *testing.T) {
	p := newIDP(t)
	raw := sealRS256(t, sharedRSA(), `{"alg":"RS256"}`, encode(t, clusterClaims(p.issuer)))
	expectKind(t, "no kid", verifyToken(t, p.foreign(), raw), token.NoKey)
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("%d fetches", n)
	}
}

func TestForeignPicksUpNewKeysOfARestartedCluster(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	expectKind(t, "first", p.check(f, "k1"), 0)
	p.setKeys(map[string]*rsa.PrivateKey{"k2": sharedRSA()})
	p.clock.add(5 * time.Second)
	expectKind(t, "new kid", p.check(f, "k2"), 0)
	expectKind(t, "old kid", p.check(f, "k1"), token.NoKey)
}

func TestRandomKidsDoNotCauseFetches(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	expectKind(t, "first", p.check(f, "k1"), 0)
	claims := b64(encode(t, clusterClaims(p.issuer)))
	for second := range 20 {
		for i := range 10 {
			random := b64(fmt.Sprintf(`{"alg":"RS256","kid":"r%d"}`, second*10+i)) + "." + claims + ".AAAA"
			expectKind(t, "random kid", verifyToken(t, f, random), token.NoKey)
		}
		p.clock.add(time.Second)
	}
	// 20 seconds at one fetch in five, and the first one.
	if n := p.fetches.Load(); n > 5 {
		t.Errorf("%d fetches for 200 random kids in 20 s", n)
	}
	expectKind(t, "good", p.check(f, "k1"), 0)
}

func TestConcurrentRequestsShareAFetch(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		p.good(w, r)
	})
	// The first one gives up; the fetch that it caused goes on for the others.
	a, err := token.ParseAssertion(signRS256(t, sharedRSA(), "k1", clusterClaims(p.issuer)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- f.VerifyAssertion(ctx, a) }()
	<-arrived
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := p.check(f, "k1"); err != nil {
				t.Error(err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestFailuresAreRememberedBriefly(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	p.answer(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	for range 5 {
		expectKind(t, "down", p.check(f, "k1"), token.Unreachable)
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("%d fetches of an issuer that is down, want 1", n)
	}
	p.answer(nil)
	p.clock.add(9 * time.Second)
	expectKind(t, "too early", p.check(f, "k1"), token.Unreachable)
	p.clock.add(time.Second)
	expectKind(t, "up again", p.check(f, "k1"), 0)
}

func TestKeysAreRefreshedBehindTheBackOfTheirUsers(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	expectKind(t, "first", p.check(f, "k1"), 0)
	p.clock.add(29 * time.Minute)
	expectKind(t, "fresh", p.check(f, "k1"), 0)
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("%d fetches of fresh keys", n)
	}
	p.clock.add(2 * time.Minute)
	release := make(chan struct{})
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		<-release
		p.good(w, r)
	})
	expectKind(t, "while the refresh is under way", p.check(f, "k1"), 0)
	p.setKeys(map[string]*rsa.PrivateKey{"k2": sharedRSA()})
	close(release)
	eventually(t, "the old key is gone", func() bool { return p.check(f, "k1") != nil })
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

func TestRevokedKeysAreNotUsedForLong(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	expectKind(t, "first", p.check(f, "k1"), 0)
	p.setKeys(map[string]*rsa.PrivateKey{"k2": sharedRSA()})
	p.clock.add(time.Hour)
	expectKind(t, "nobody came by for an hour", p.check(f, "k1"), token.NoKey)
}

func TestOldKeysServeWhileTheIssuerIsDown(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	expectKind(t, "first", p.check(f, "k1"), 0)
	p.answer(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	p.clock.add(2 * time.Hour)
	for range 10 {
		expectKind(t, "stale", p.check(f, "k1"), 0)
		expectKind(t, "unknown kid", p.check(f, "k2"), token.Unreachable)
	}
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	p.clock.add(22 * time.Hour)
	eventually(t, "the refresh ends", func() bool { return p.check(f, "k1") != nil })
	expectKind(t, "too old", p.check(f, "k1"), token.Unreachable)
	p.answer(nil)
	p.clock.add(time.Minute)
	expectKind(t, "up again", p.check(f, "k1"), 0)
}

func TestAClockThatIsSetBackDoesNotStopFetches(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	expectKind(t, "first", p.check(f, "k1"), 0)
	p.clock.add(-time.Hour)
	p.setKeys(map[string]*rsa.PrivateKey{"k2": sharedRSA()})
	expectKind(t, "new kid", p.check(f, "k2"), 0)
}

func TestPlainHTTPIsForLoopbackOnly(t *testing.T) {
	p := newIDP(t)
	plain := httptest.NewServer(http.HandlerFunc(p.serve))
	defer plain.Close()
	_, port, _ := net.SplitHostPort(plain.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost"} {
		p.issuer = "http://" + host + ":" + port + "/tenant/"
		f := p.foreign()
		expectKind(t, host+", allowed", p.check(f, "k1"), 0)
		f = p.foreign()
		f.AllowLoopback = false
		expectKind(t, host+", not allowed", p.check(f, "k1"), token.Unreachable)
	}
	p.issuer = "http://example.com:" + port + "/tenant/"
	expectKind(t, "a name that leads to loopback", p.check(p.foreign(), "k1"), token.Unreachable)
}

func TestForeignServerMustBeTrusted(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	f.RootCAs = x509.NewCertPool()
	expectKind(t, "unknown authority", p.check(f, "k1"), token.Unreachable)
	f = p.foreign()
	p.issuer = strings.Replace(p.issuer, "example.com", "other.test", 1)
	expectKind(t, "another's certificate", p.check(f, "k1"), token.Unreachable)
}
