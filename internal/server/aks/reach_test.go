package aks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/install/installtest"
)

// byOwner registers the cluster "shop" as somebody who owns the subscription
// and no more.
func (r *rig) byOwner(kubeconfig string) {
	r.t.Helper()
	b := fetching(issuerURL)
	props(b)["podkey"].(map[string]any)["kubeconfig"] = kubeconfig
	r.must(201, "owner", "PUT", clusterPath("shop"), b)
}

// TestSSRFByKubeconfig: where the server does not go, whoever registered it,
// by an address in the kubeconfig and by a name whose DNS leads there.
func TestSSRFByKubeconfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	r.start()
	u, err := url.Parse(k.URL)
	if err != nil {
		t.Fatal(err)
	}
	never := []string{"169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "224.0.0.1", "64:ff9b::7f00:1"}
	private := []string{"127.0.0.1", "::1", "10.89.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd12::1"}
	r.dns = map[string][]netip.Addr{}
	n := 0
	try := func(register func(string), address string, byName bool) {
		t.Helper()
		host := address
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if byName {
			n++
			host = fmt.Sprintf("c%d.test", n)
		}
		register(k.Kubeconfig("https://"+host+":"+u.Port(), ""))
		r.fails(r.wish(true), codeUnreachable, "is not allowed")
		r.must(204, "operator", "DELETE", clusterPath("shop"), nil)
	}
	// The names first: the map is read by the work.
	for i, a := range append(append([]string{}, never...), append(private, never...)...) {
		r.dns[fmt.Sprintf("c%d.test", i+1)] = []netip.Addr{netip.MustParseAddr(a)}
	}
	for _, a := range never {
		try(r.reachable, a, true)
	}
	for _, a := range append(private, never...) {
		try(r.byOwner, a, true)
	}
	for _, a := range never {
		try(r.reachable, a, false)
	}
	for _, a := range append(private, never...) {
		try(r.byOwner, a, false)
	}
	if len(k.Calls()) > 0 {
		t.Errorf("it was asked: %v", k.Calls())
	}
}

// TestAnOwnersKubeconfigOverAnOperators: what an operator was trusted with is
// not inherited by a kubeconfig that somebody else registers.
func TestAnOwnersKubeconfigOverAnOperators(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	r.reachable(k.Kubeconfig("", ""))
	r.start()
	r.succeeds(r.wish(true))
	b := registering(issuerURL, r.jwks("one"))
	props(b)["podkey"].(map[string]any)["kubeconfig"] = k.Kubeconfig("", "token: another")
	r.fails(r.must(200, "owner", "PUT", clusterPath("shop"), b), codeUnreachable, "127.0.0.1 is not allowed")
}

// TestARedirectIsNotFollowed: it would take the credential elsewhere.
func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var asked atomic.Int64
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(other.Close)
	k := installtest.New(t)
	var status atomic.Int64
	k.Before = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.URL+r.URL.Path, int(status.Load()))
		return true
	}
	r.reachable(k.Kubeconfig("", ""))
	r.start()
	for _, s := range []int64{301, 302, 303, 307, 308} {
		status.Store(s)
		r.fails(r.wish(true), codeUnreachable, "redirect")
	}
	if asked.Load() > 0 {
		t.Error("it was followed")
	}
}

// TestHugeAndSlowAnswers end, and in bounded time.
func TestHugeAndSlowAnswers(t *testing.T) {
	t.Parallel()
	page := []byte(strings.Repeat("a", 64<<10))
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"huge": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"kind":"`))
			for r.Context().Err() == nil {
				if _, err := w.Write(page); err != nil {
					return
				}
			}
		},
		"huge refusal": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			for r.Context().Err() == nil {
				if _, err := w.Write(page); err != nil {
					return
				}
			}
		},
		"huge header": func(w http.ResponseWriter, _ *http.Request) {
			for i := range 64 {
				w.Header().Set(fmt.Sprintf("X-%d", i), string(page[:8<<10]))
			}
			installtest.Refuse(w, 404, "NotFound", "no")
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"never ending": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_, _ = w.Write([]byte("{"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"later, for ever": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			installtest.Refuse(w, 429, "TooManyRequests", "later")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			code := codeUnreachable
			if !strings.HasPrefix(name, "huge") {
				r.c.o.WorkTime, code = time.Second, codeNotReady
			}
			k := installtest.New(t)
			k.Before = func(w http.ResponseWriter, r *http.Request) bool { answer(w, r); return true }
			r.reachable(k.Kubeconfig("", ""))
			r.start()
			status, _ := r.poll(r.wish(true))
			if m, _ := status.at("error.message").(string); status.at("error.code") != code || m == "" || len(m) > 2000 || strings.Contains(m, "aaaa") {
				t.Errorf("%s", status.Body)
			}
		})
	}
}

// TestTheServerRunsNoProgram: a kubeconfig with one may be registered and is
// never used.
func TestTheServerRunsNoProgram(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	ran := filepath.Join(t.TempDir(), "ran")
	b := registering(issuerURL, r.jwks("one"))
	p := props(b)["podkey"].(map[string]any)
	p["kubeconfig"] = k.Kubeconfig("", "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/touch, args: ['"+ran+"'], interactiveMode: Never}")
	p["allowExec"] = true
	r.must(201, "operator", "PUT", clusterPath("shop"), b)
	r.start()
	r.fails(r.wish(true), codeUnusable, "podkey install --kubeconfig FILE")
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program ran")
	}

	p["kubeconfig"] = strings.Replace(k.Kubeconfig("", ""), "cluster: {server", "cluster: {proxy-url: '"+k.URL+"', server", 1)
	r.fails(r.must(200, "operator", "PUT", clusterPath("shop"), b), codeUnusable, "proxy-url")
	if len(k.Calls()) > 0 {
		t.Errorf("it was asked: %v", k.Calls())
	}
}

// TestAServerThatQuotesTheCredential: it is in no answer, log or record.
func TestAServerThatQuotesTheCredential(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]string{"token": "", "password": "username: admin, password: " + secret} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			k := installtest.New(t)
			k.Before = func(w http.ResponseWriter, r *http.Request) bool {
				_, password, _ := r.BasicAuth()
				installtest.Refuse(w, 403, "Forbidden", strings.Repeat("x", 970)+"not you: "+r.Header.Get("Authorization")+" "+password)
				return true
			}
			r.reachable(k.Kubeconfig("", user))
			r.start()
			status, resource := r.poll(r.wish(true))
			if status.at("error.code") != codeDenied || !strings.Contains(status.Body.String(), "not you: ") {
				t.Errorf("%s", status.Body)
			}
			for where, text := range map[string]string{"status": status.Body.String(), "cluster": resource.Body.String(), "store": r.dump(), "log": r.log.String()} {
				for _, s := range []string{installtest.Token[:8], secret[:8], "YWRtaW46"} { // "admin:" in base64
					if strings.Contains(text, s) {
						t.Errorf("%s has %s: %s", where, s, text)
					}
				}
			}
		})
	}
}

// TestTheCertificateIsVerified: nobody in between gets the credential.
func TestTheCertificateIsVerified(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	var asked atomic.Int64
	k.Before = func(http.ResponseWriter, *http.Request) bool { asked.Add(1); return false }
	// The same addresses, another name.
	r.reachable(strings.Replace(k.Kubeconfig("", ""), "cluster: {server", "cluster: {tls-server-name: api.shop.test, server", 1))
	r.start()
	r.fails(r.wish(true), codeUnreachable, "certificate")
	if asked.Load() > 0 {
		t.Error("it was asked")
	}
}
