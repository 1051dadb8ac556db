package kubeconfig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// pair is a self-signed certificate with its key, PEM.
func pair(t testing.TB) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk})
}

// file is a configuration with two contexts, of which "other" is of no use.
func file(cluster, user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: main
preferences: {}
contexts:
- {name: main, context: {cluster: c, user: u, namespace: shop}}
- {name: other, context: {cluster: gone, user: gone}}
clusters:
- name: c
  cluster: {%s}
users:
- name: u
  user: {%s}
`, cluster, user)
}

const server = "server: 'https://10.0.0.1:6443'"

func TestWhatIsReadIsWrittenAndReadAgain(t *testing.T) {
	t.Parallel()
	cert, key := pair(t)
	b64 := base64.StdEncoding.EncodeToString
	text := file(server+", tls-server-name: api, proxy-url: 'socks5://127.0.0.1:1', certificate-authority-data: "+b64(cert),
		"token: abc, client-certificate-data: "+b64(cert)+", client-key-data: "+b64(key))
	a, err := Parse([]byte(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Server != "https://10.0.0.1:6443" || a.Token != "abc" || a.Namespace != "shop" || !bytes.Equal(a.CA, cert) || !bytes.Equal(a.Key, key) {
		t.Error("something was lost")
	}
	out, err := a.Render("shop-cluster", "clusterUser_rg_shop-cluster", "shop-cluster")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(out, Options{Context: "shop-cluster"})
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	once, _ := a.Render("x", "y", "z")
	twice, _ := again.Render("x", "y", "z")
	if !bytes.Equal(once, twice) {
		t.Error("it is another after a round trip")
	}
	if s := fmt.Sprintf("%v %+v %#v %v %+v %#v %s", a, a, a, *a, *a, *a, *a); strings.Contains(s, "abc") {
		t.Error("the token is in its text")
	}
	if _, err := a.TLS(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	cert, _ := pair(t)
	_, strange := pair(t)
	b64 := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct{ cluster, user string }{
		"http":                {"server: 'http://10.0.0.1'", "token: hunter2"},
		"no server":           {"", "token: hunter2"},
		"user info":           {"server: 'https://a:hunter2@10.0.0.1'", "token: hunter2"},
		"query":               {"server: 'https://10.0.0.1/?a=hunter2'", "token: hunter2"},
		"no verification":     {server + ", insecure-skip-tls-verify: true", "token: hunter2"},
		"CA by file":          {server + ", certificate-authority: /etc/hunter2", "token: hunter2"},
		"CA is no CA":         {server + ", certificate-authority-data: " + b64([]byte("hunter2")), "token: hunter2"},
		"unknown of cluster":  {server + ", hunter3: true", "token: hunter2"},
		"proxy":               {server + ", proxy-url: 'ftp://hunter2'", "token: hunter2"},
		"no credential":       {server, ""},
		"token with newline":  {server, `token: "hunter2\n"`},
		"token by file":       {server, "tokenFile: /etc/hunter2"},
		"key without cert":    {server, "client-key-data: " + b64(strange)},
		"key of another":      {server, "client-key-data: " + b64(strange) + ", client-certificate-data: " + b64(cert)},
		"exec":                {server, "exec: {command: hunter2}"},
		"auth-provider":       {server, "auth-provider: {name: hunter2}"},
		"impersonation":       {server, "token: hunter2, as: admin"},
		"wrong type":          {server, "token: [hunter2]"},
		"repeated member":     {server, "token: hunter2, token: hunter2"},
		"data is not base64":  {server, "client-key-data: 'hunter2 hunter2'"},
		"password, no name":   {server, "password: hunter2"},
		"server of a program": {"server: 'file:///hunter2'", "token: hunter2"},
	} {
		_, err := Parse([]byte(file(c.cluster, c.user)), Options{})
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"empty":          "",
		"list":           "[]",
		"another kind":   "apiVersion: v1\nkind: Secret\n",
		"no YAML":        "\x00\x01",
		"no context":     "apiVersion: v1\nkind: Config\n",
		"too long":       strings.Repeat("#", MaxSize+1),
		"aliases":        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n",
		"two users":      strings.Replace(file(server, "token: a"), "users:", "users:\n- {name: u, user: {token: b}}", 1),
		"context broken": strings.Replace(file(server, "token: a"), "current-context: main", "current-context: other", 1),
		"deep":           strings.Repeat("[", 20000),
	} {
		if _, err := Parse([]byte(text), Options{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFilesAreBroughtInWhenTheyMayBeRead(t *testing.T) {
	t.Parallel()
	cert, key := pair(t)
	files := map[string][]byte{"ca.pem": cert, "tls.crt": cert, "tls.key": key, "token": []byte("abc\n")}
	read := func(path string) ([]byte, error) {
		if b := files[path]; b != nil {
			return b, nil
		}
		return nil, errors.New("no such file")
	}
	text := file(server+", certificate-authority: ca.pem", "client-certificate: tls.crt, client-key: tls.key, tokenFile: token")
	a, err := Parse([]byte(text), Options{ReadFile: read})
	if err != nil {
		t.Fatal(err)
	}
	if a.Token != "abc" || !bytes.Equal(a.Certificate, cert) {
		t.Error("a file is missing")
	}
	delete(files, "tls.key")
	if _, err := Parse([]byte(text), Options{ReadFile: read}); err == nil {
		t.Error("a missing file was not noticed")
	}
}

func TestProgramsAreRunOnlyWhenAllowed(t *testing.T) {
	t.Parallel()
	text := []byte(file(server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: kubelogin, args: [get-token], env: [{name: A, value: b}], interactiveMode: Never}"))
	if _, err := Parse(text, Options{}); !errors.Is(err, ErrExec) {
		t.Errorf("err = %v", err)
	}
	a, err := Parse(text, Options{AllowExec: true})
	if err != nil || a.Exec == nil || a.Exec.Command != "kubelogin" || a.Exec.Args[0] != "get-token" {
		t.Fatalf("%v", err)
	}
	out, err := a.Render("c", "u", "x")
	if err != nil || !strings.Contains(string(out), "kubelogin") {
		t.Errorf("%v: the program is lost", err)
	}
	if _, err := Parse([]byte(file(server, "exec: {command: a, hunter: 1}")), Options{AllowExec: true}); err == nil {
		t.Error("unknown members of exec are accepted")
	}
}

// FuzzParse: whatever is accepted can be written, and reads back as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(file(server, "token: abc")))
	f.Add([]byte(file(server, "exec: {command: a}")))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Config","contexts":[{"name":"a","context":{"cluster":"c","user":"u"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Parse(data, Options{AllowExec: true})
		if err != nil {
			return
		}
		out, err := a.Render("c", "u", "x")
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(out, Options{AllowExec: true})
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if again, _ := b.Render("c", "u", "x"); !bytes.Equal(out, again) {
			t.Error("it is another after a round trip")
		}
	})
}
