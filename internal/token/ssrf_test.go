package token_test

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/token"
)

// TestSSRFByIssuerURL: issuers whose URL alone gives them away. None of them
// may lead to a look-up or a connection.
func TestSSRFByIssuerURL(t *testing.T) {
	for _, issuer := range []string{
		"http://example.com/", "HTTP://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "//example.com/", "example.com", "/etc/passwd", "https:example.com", "https:/example.com", "https://", "https:///path",
		"https://user@example.com/", "https://user:password@example.com/", "https://example.com@127.0.0.1/", "https://@example.com/",
		"https://example.com/?a=b", "https://example.com/?", "https://example.com/#", "https://example.com/#a",
		"https://example.com\\@127.0.0.1/", "https://example.com/\\a", "https://example.com /", " https://example.com/", "https://example.com/\n", "https://example.com/\x00", "https://exa\tmple.com/", "https://éxample.com/", "https://127。0。0。1/",
		"https://example.com:/", "https://example.com:0/", "https://example.com:65536/", "https://example.com:-1/", "https://example.com:443:443/", "https://example.com:a/",
		"https://%6c%6f%63alhost/", "https://[fe80::1%25eth0]/", "https://example.com%00/",
		"https://2130706433/", "https://0x7f000001/", "https://017700000001/", "https://0x7f.1/", "https://127.1/", "https://127.0.1/", "https://0177.0.0.1/", "https://127.0.0.1./", "https://1./", "https://127.0.0.0x1/", "https://0/", "https://000.0.0.0/", "https://127.0.0.08/", "https://4294967297/", "https://99999999999999999999/",
		"http://127.0.0.1/", "http://localhost/", "http://[::1]/",
		"https://" + strings.Repeat("a", 3000) + ".test/",
	} {
		f := &token.Foreign{Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			t.Errorf("%q: host %q is looked up", issuer, host)
			return nil, errors.New("not here")
		}}
		expectKind(t, fmt.Sprintf("%q", issuer), verifyToken(t, f, signRS256(t, sharedRSA(), "k", clusterClaims(issuer))), token.Unreachable)
	}
}

// forbidden are addresses that a stranger may not send us to, by whether an
// option opens them.
var forbidden = map[string]string{
	"127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback", "::ffff:7f00:1": "loopback",
	"10.0.0.1": "private", "10.255.255.255": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private", "::ffff:10.0.0.1": "private",
	"100.64.0.1": "private", "100.127.255.255": "private", "fc00::1": "private", "fd12:3456::1": "private", "198.18.0.1": "private",
	"169.254.169.254": "never", "169.254.0.1": "never", "::ffff:169.254.169.254": "never", "fe80::1": "never", "febf::1": "never",
	"168.63.129.16": "never", "100.100.100.200": "never", "fd00:ec2::254": "never", "fd20:ce::254": "never", "192.0.0.192": "never",
	"0.0.0.0": "never", "0.1.2.3": "never", "::": "never", "::ffff:0.0.0.0": "never", "::127.0.0.1": "never", "::a00:1": "never",
	"224.0.0.1": "never", "239.255.255.250": "never", "ff02::1": "never", "ff0e::1": "never", "255.255.255.255": "never", "240.0.0.1": "never",
	"64:ff9b::7f00:1": "never", "64:ff9b:1::a00:1": "never", "2002:7f00:1::": "never", "2002:a00:1::1": "never", "2001:0:7f00:1::": "never", "2001:db8::1": "never",
	"192.0.2.1": "never", "198.51.100.1": "never", "203.0.113.1": "never", "192.88.99.1": "never", "fec0::1": "never", "100::1": "never", "3fff::1": "never", "5f00::1": "never",
}

// TestSSRFByAddress: an address in the URL, and a name whose DNS leads to
// one, under every combination of options.
func TestSSRFByAddress(t *testing.T) {
	rebind := signRS256(t, sharedRSA(), "k", clusterClaims("https://rebind.test/"))
	for text, opens := range forbidden {
		address := netip.MustParseAddr(text)
		literal := signRS256(t, sharedRSA(), "k", clusterClaims("https://"+netip.AddrPortFrom(address, 443).String()+"/"))
		for _, loopback := range []bool{false, true} {
			for _, private := range []bool{false, true} {
				if opens == "loopback" && loopback || opens == "private" && private {
					continue // would really be dialled
				}
				f := &token.Foreign{AllowLoopback: loopback, AllowPrivate: private, Timeout: time.Second}
				f.Resolve = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{address}, nil }
				for how, raw := range map[string]string{"in the URL": literal, "by DNS": rebind} {
					err := verifyToken(t, f, raw)
					expectKind(t, text+" "+how, err, token.Unreachable)
					if refused, ok := errors.AsType[*token.AddressError](err); !ok || refused.Addr != address.Unmap() {
						t.Errorf("%s %s: refused, but not for its address: %v", text, how, err)
					}
				}
			}
		}
	}
}

// TestSSRFByDNSRebinding: a name whose first answer is harmless and whose
// next is not. Each connection resolves once and goes where that answer said
// or nowhere.
func TestSSRFByDNSRebinding(t *testing.T) {
	p := newIDP(t)
	f := p.foreign()
	f.AllowLoopback = false
	var answers atomic.Int32
	f.Resolve = func(context.Context, string) ([]netip.Addr, error) {
		if answers.Add(1) == 1 {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
	}
	expectKind(t, "first", p.check(f, "k1"), token.Unreachable)
	p.clock.add(time.Minute)
	expectKind(t, "second", p.check(f, "k1"), token.Unreachable)
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	// Of several addresses only those that are allowed are dialled.
	f = p.foreign()
	f.Resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	expectKind(t, "mixed", p.check(f, "k1"), 0)
}

// TestSSRFByRedirect: answers that send us elsewhere.
func TestSSRFByRedirect(t *testing.T) {
	var elsewhere atomic.Int32
	trap := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer trap.Close()
	plain := httptest.NewServer(trap.Config.Handler)
	defer plain.Close()
	p := newIDP(t)
	origin := strings.TrimSuffix(p.issuer, "/tenant/")
	for name, to := range map[string]string{
		"metadata":        "http://169.254.169.254/metadata/identity",
		"plain http":      strings.Replace(p.issuer, "https:", "http:", 1),
		"other port":      trap.URL + "/",
		"plain other":     plain.URL + "/",
		"other name":      strings.Replace(p.issuer, "example.com", "www.example.com", 1),
		"user":            strings.Replace(p.issuer, "https://", "https://user@", 1),
		"file":            "file:///etc/passwd",
		"itself for ever": "/tenant/.well-known/openid-configuration",
	} {
		for _, document := range []string{"/tenant/.well-known/openid-configuration", "/tenant/keys"} {
			p.answer(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == document || name == "itself for ever" {
					http.Redirect(w, r, to, http.StatusFound)
					return
				}
				p.good(w, r)
			})
			before := p.fetches.Load()
			err := p.check(p.foreign(), "k1")
			expectKind(t, name+" from "+document, err, token.Unreachable)
			if err != nil && !strings.Contains(err.Error(), "redirect") {
				t.Errorf("%s from %s: refused, but not for the redirect: %v", name, document, err)
			}
			if n := p.fetches.Load() - before; n > 4 {
				t.Errorf("%s: %d redirects are followed", name, n)
			}
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d redirects were followed to another host", n)
	}
	// Within a host they are harmless and some sites need them.
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/tenant/keys":
			http.Redirect(w, r, origin+"/tenant/keys/v2", http.StatusMovedPermanently)
		case "/tenant/keys/v2":
			_, _ = io.WriteString(w, p.jwks())
		default:
			p.good(w, r)
		}
	})
	expectKind(t, "within the host", p.check(p.foreign(), "k1"), 0)
}

// TestSSRFByJWKSURI: a document that names keys where it must not.
func TestSSRFByJWKSURI(t *testing.T) {
	var elsewhere atomic.Int32
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer plain.Close()
	p := newIDP(t)
	for _, uri := range []string{
		"https://169.254.169.254/keys", "https://10.0.0.1/keys", "https://[fd00:ec2::254]/keys", "http://169.254.169.254/metadata/identity/oauth2/token",
		plain.URL + "/keys", strings.Replace(plain.URL, "127.0.0.1", "localhost", 1) + "/keys", "http://example.com/keys",
		"file:///etc/passwd", "keys", "/tenant/keys", "", "https://user@example.com/keys", "https://example.com/keys#a", "https://2852039166/keys",
	} {
		p.answer(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.issuer, uri)
		})
		expectKind(t, "jwks_uri "+uri, p.check(p.foreign(), "k1"), token.Unparsable)
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	// Another host is allowed, under the same rules.
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/keys") {
			p.good(w, r)
			return
		}
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.issuer, strings.Replace(p.issuer, "example.com", "127.0.0.1", 1)+"keys")
	})
	expectKind(t, "another host", p.check(p.foreign(), "k1"), 0)
	f := p.foreign()
	f.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "keys.test" {
			return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"https://keys.test/keys"}`, p.issuer)
	})
	err := p.check(f, "k1")
	expectKind(t, "another host at a metadata address", err, token.Unreachable)
	if _, ok := errors.AsType[*token.AddressError](err); !ok {
		t.Errorf("refused, but not for its address: %v", err)
	}
}

// TestProxiesAreNotUsed: a proxy would do the dialling, past our rules.
func TestProxiesAreNotUsed(t *testing.T) {
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	p := newIDP(t)
	expectKind(t, "with a proxy set", p.check(p.foreign(), "k1"), 0)
	if asked.Load() != 0 {
		t.Error("the proxy was asked")
	}
}

// TestBadDocuments: what an issuer may serve instead of what it should.
func TestBadDocuments(t *testing.T) {
	p := newIDP(t)
	keysAt := p.issuer + "keys"
	discovery := map[string]string{
		"empty": "", "not JSON": "<html></html>", "list": "[]", "null": "null", "text after": `{"issuer":"` + p.issuer + `","jwks_uri":"` + keysAt + `"}x`,
		"no issuer":      `{"jwks_uri":"` + keysAt + `"}`,
		"no jwks_uri":    `{"issuer":"` + p.issuer + `"}`,
		"issuer list":    `{"issuer":["` + p.issuer + `"],"jwks_uri":"` + keysAt + `"}`,
		"other issuer":   `{"issuer":"https://evil.test/","jwks_uri":"` + keysAt + `"}`,
		"no slash":       `{"issuer":"` + strings.TrimSuffix(p.issuer, "/") + `","jwks_uri":"` + keysAt + `"}`,
		"other case":     `{"issuer":"` + strings.ToUpper(p.issuer) + `","jwks_uri":"` + keysAt + `"}`,
		"blank after":    `{"issuer":"` + p.issuer + ` ","jwks_uri":"` + keysAt + `"}`,
		"issuer twice":   `{"issuer":"https://evil.test/","issuer":"` + p.issuer + `","jwks_uri":"` + keysAt + `"}`,
		"jwks_uri twice": `{"issuer":"` + p.issuer + `","jwks_uri":"https://evil.test/","jwks_uri":"` + keysAt + `"}`,
		"names' case":    `{"Issuer":"` + p.issuer + `","JWKS_URI":"` + keysAt + `"}`,
		"huge":           `{"issuer":"` + p.issuer + `","jwks_uri":"` + keysAt + `","x":"` + strings.Repeat("x", 1<<20) + `"}`,
		"deep":           `{"issuer":"` + p.issuer + `","jwks_uri":"` + keysAt + `","x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`,
	}
	for name, document := range discovery {
		p.answer(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "openid-configuration") {
				_, _ = io.WriteString(w, document)
				return
			}
			p.good(w, r)
		})
		expectKind(t, "discovery "+name, p.check(p.foreign(), "k1"), token.Unparsable)
	}

	good := sharedRSA()
	n := base64.RawURLEncoding.EncodeToString(good.N.Bytes())
	other := base64.RawURLEncoding.EncodeToString(mustRSA(2048).N.Bytes())
	weak := base64.RawURLEncoding.EncodeToString(mustRSA(1024).N.Bytes())
	key := func(members string) string { return `{"keys":[{` + members + `}]}` }
	usual := `"kty":"RSA","use":"sig","alg":"RS256","kid":"k1","e":"AQAB","n":"` + n + `"`
	many := func(count int) string {
		var b strings.Builder
		for range count {
			b.WriteString(`{"kty":"oct","kid":"x"},`)
		}
		return `{"keys":[` + b.String() + `{` + usual + `}]}`
	}
	for _, c := range []struct {
		name, document string
		want           token.ForeignKind
	}{
		{"usual", key(usual), 0},
		{"bare", key(`"kty":"RSA","kid":"k1","e":"AQAB","n":"` + n + `"`), 0},
		{"padded modulus", key(`"kty":"RSA","kid":"k1","e":"AQAB","n":"` + n + `=="`), 0},
		{"unknown members and kinds beside it", `{"x":1,"keys":[{"kty":"OKP","crv":"Ed25519","kid":"o","x":"AA"},{"kty":"future","kid":"f"},{},{` + usual + `,"x5c":["a"],"key_ops":["verify"]}]}`, 0},
		{"same key twice", `{"keys":[{` + usual + `},{` + usual + `}]}`, 0},
		{"256 keys", many(255), 0},
		{"257 keys", many(256), token.Unparsable},
		{"empty", "", token.Unparsable},
		{"not JSON", "keys", token.Unparsable},
		{"no keys", `{}`, token.Unparsable},
		{"keys null", `{"keys":null}`, token.Unparsable},
		{"keys object", `{"keys":{}}`, token.Unparsable},
		{"keys twice", `{"keys":[],"keys":[{` + usual + `}]}`, token.Unparsable},
		{"key list", `{"keys":[[]]}`, token.Unparsable},
		{"kid twice", key(usual + `,"kid":"k1"`), token.Unparsable},
		{"kid number", key(`"kty":"RSA","kid":1`), token.Unparsable},
		{"huge", `{"keys":[{` + usual + `}],"x":"` + strings.Repeat("x", 1<<20) + `"}`, token.Unparsable},
		{"good, with a megabyte of blanks after it", `{"keys":[{` + usual + `}]}` + strings.Repeat(" ", 1<<20), token.Unparsable},
		{"no key at all", `{"keys":[]}`, token.NoKey},
		{"two keys of one name", `{"keys":[{` + usual + `},{"kty":"RSA","kid":"k1","e":"AQAB","n":"` + other + `"}]}`, token.NoKey},
		{"two keys of one name, the other way", `{"keys":[{"kty":"RSA","kid":"k1","e":"AQAB","n":"` + other + `"},{` + usual + `}]}`, token.NoKey},
		{"symmetric", key(`"kty":"oct","kid":"k1","k":"` + n + `"`), token.NoKey},
		{"RSA with a symmetric part", key(usual + `,"k":"AA"`), token.NoKey},
		{"private", key(usual + `,"d":"AQAB"`), token.NoKey},
		{"private primes", key(usual + `,"p":"AA","q":"AA"`), token.NoKey},
		{"for encryption", key(strings.Replace(usual, `"sig"`, `"enc"`, 1)), token.NoKey},
		{"for RS512", key(strings.Replace(usual, "RS256", "RS512", 1)), token.NoKey},
		{"for HS256", key(strings.Replace(usual, "RS256", "HS256", 1)), token.NoKey},
		{"nameless", key(strings.Replace(usual, `"kid":"k1",`, "", 1)), token.NoKey},
		{"EC", key(`"kty":"EC","kid":"k1","crv":"P-256","x":"AA","y":"AA"`), token.NoKey},
		{"RSA key under another kind", key(strings.Replace(usual, `"RSA"`, `"EC"`, 1)), token.NoKey},
		{"1024 bits", key(strings.Replace(usual, n, weak, 1)), token.NoKey},
		{"16384 bits", key(strings.Replace(usual, n, strings.Repeat("_", 2730), 1)), token.NoKey},
		{"even modulus", key(strings.Replace(usual, n, strings.Repeat("_", 340)+"_g", 1)), token.NoKey},
		{"exponent 1", key(strings.Replace(usual, "AQAB", "AQ", 1)), token.NoKey},
		{"even exponent", key(strings.Replace(usual, "AQAB", "AQAA", 1)), token.NoKey},
		{"huge exponent", key(strings.Replace(usual, "AQAB", strings.Repeat("_", 40), 1)), token.NoKey},
		{"exponent that is 65537 in its last 64 bits", key(strings.Replace(usual, "AQAB", "AQAAAAAAAQAB", 1)), token.NoKey},
		{"no exponent", key(strings.Replace(usual, "AQAB", "", 1)), token.NoKey},
		{"modulus not base64", key(strings.Replace(usual, n, "!!!!", 1)), token.NoKey},
		{"another's key under this name", key(strings.Replace(usual, n, other, 1)), token.BadForeign},
	} {
		p.answer(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/keys") {
				_, _ = io.WriteString(w, c.document)
				return
			}
			p.good(w, r)
		})
		expectKind(t, "key set "+c.name, p.check(p.foreign(), "k1"), c.want)
	}
}

// TestHostileServers: endless, slow, broken and silent answers.
func TestHostileServers(t *testing.T) {
	p := newIDP(t)
	var sent atomic.Int64
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    token.ForeignKind
	}{
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			chunk := []byte(strings.Repeat(" ", 1<<16))
			for {
				n, err := w.Write(chunk)
				if sent.Add(int64(n)); err != nil || r.Context().Err() != nil {
					return
				}
			}
		}, token.Unparsable},
		"never answers": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, token.Unreachable},
		"stops in the middle": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"issuer":`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, token.Unreachable},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{}`)
		}, token.Unreachable},
		"huge header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, token.Unreachable},
		"not found":  {http.NotFound, token.Unreachable},
		"no content": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, token.Unreachable},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" && r.Header.Get("Accept-Encoding") != "identity" {
				t.Errorf("asks for %s", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte{0x1f, 0x8b, 8, 0})
		}, token.Unparsable},
	} {
		p.answer(c.handler)
		f := p.foreign()
		f.Timeout = 300 * time.Millisecond
		expectKind(t, name, p.check(f, "k1"), c.want)
	}
	if n := sent.Load(); n > 8<<20 {
		t.Errorf("%d bytes of an endless answer were taken", n)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f := p.foreign()
	f.Timeout = 100 * time.Millisecond
	expectKind(t, "no TLS handshake", verifyToken(t, f, signRS256(t, sharedRSA(), "k1", clusterClaims("https://"+silent.Addr().String()+"/"))), token.Unreachable)
}

// TestKeyConfusionBetweenIssuers: a key of one issuer does not count for
// another, even if a token of the one was remembered.
func TestKeyConfusionBetweenIssuers(t *testing.T) {
	a, b := newIDP(t), newIDP(t)
	theirs := mustRSA(2048)
	b.setKeys(map[string]*rsa.PrivateKey{"k1": theirs, "k9": theirs})
	f := a.foreign()
	f.RootCAs.AddCert(b.server.Certificate())
	expectKind(t, "a's token", a.check(f, "k1"), 0)
	raw := signRS256(t, sharedRSA(), "k1", clusterClaims(b.issuer))
	expectKind(t, "b's token by a's key", verifyToken(t, f, raw), token.BadForeign)
	expectKind(t, "b's own", verifyToken(t, f, signRS256(t, theirs, "k1", clusterClaims(b.issuer))), 0)
	expectKind(t, "a's token by b's key", verifyToken(t, f, signRS256(t, theirs, "k1", clusterClaims(a.issuer))), token.BadForeign)
	expectKind(t, "b's kid at a", verifyToken(t, f, signRS256(t, theirs, "k9", clusterClaims(a.issuer))), token.NoKey)

	// Registered keys of one are not those of the other.
	f = &token.Foreign{Registered: func(_ context.Context, issuer string) (*jose.JSONWebKeySet, bool, error) {
		key := &sharedRSA().PublicKey
		if issuer == b.issuer {
			key = &theirs.PublicKey
		}
		return &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "k1"}}}, true, nil
	}}
	expectKind(t, "registered a", a.check(f, "k1"), 0)
	expectKind(t, "registered b by a's key", verifyToken(t, f, raw), token.BadForeign)
}
