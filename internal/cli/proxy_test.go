package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestProxy runs the command as a pod does, without a token service: it is
// ready, answers, and stops when it is told.
func TestProxy(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(closed)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_FEDERATED_TOKEN_FILE": filepath.Join(t.TempDir(), "none"),
		"AZURE_AUTHORITY_HOST": "https://login.invalid/", "IDENTITY_HEADER": "a-secret", "POD_NAME": "web-0",
	} {
		t.Setenv(name, value)
	}
	for protocol, path := range map[string]string{
		"imds":       "/metadata/instance/compute/name?api-version=2021-02-01",
		"appservice": "/msi/token?api-version=2019-08-01&resource=",
	} {
		ctx, stop := context.WithCancel(t.Context())
		var log bytes.Buffer
		status := make(chan int, 1)
		go func() {
			status <- Run(ctx, []string{"proxy", "--proxy-port", port, "--protocol", protocol}, IO{In: strings.NewReader(""), Out: io.Discard, Err: &log})
		}()
		for conn := net.Conn(nil); conn == nil; {
			if conn, err = net.Dial("tcp", closed); err == nil {
				conn.Close()
			}
		}
		if got, _, talk := podkey(t, "proxy", "--probe", "--proxy-port", port); got != 0 {
			t.Errorf("%s: the probe has status %d: %s", protocol, got, talk)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost:"+port+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Metadata", "true")
		req.Header.Set("X-Identity-Header", "a-secret")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{"imds": `"web-0"`, "appservice": "The resource parameter is required."}[protocol]; !strings.Contains(string(b), want) {
			t.Errorf("%s: HTTP %d %s, want %s", protocol, resp.StatusCode, b, want)
		}
		stop()
		if got := <-status; got != 0 {
			t.Errorf("%s: status %d: %s", protocol, got, &log)
		}
		for line := range strings.SplitSeq(strings.TrimSpace(log.String()), "\n") {
			if !json.Valid([]byte(line)) || strings.Contains(line, "a-secret") {
				t.Errorf("%s: log line %q", protocol, line)
			}
		}
	}
}

func TestProxyRefuses(t *testing.T) {
	good := map[string]string{"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_FEDERATED_TOKEN_FILE": "/none", "AZURE_AUTHORITY_HOST": "", "IDENTITY_HEADER": ""}
	for name, c := range map[string]struct {
		args   string
		unset  string
		status int
		says   string
	}{
		"no tenant":              {"", "AZURE_TENANT_ID", 1, "AZURE_TENANT_ID not set"},
		"no secret":              {"--protocol appservice", "", 1, "IDENTITY_HEADER not set"},
		"unknown protocol":       {"--protocol arc", "", 2, "unknown protocol"},
		"forward in App Service": {"--protocol appservice --forward-metadata", "", 2, "no metadata"},
		"port":                   {"--proxy-port 65536", "", 2, "not a port"},
		"level":                  {"--log-level loud", "", 2, "unknown log level"},
		"identity":               {"--identity abc", "", 2, "not CLIENTID=ID"},
		"ambiguous identity":     {"--identity a=x --identity b=X", "", 2, "two identities"},
		"empty identity":         {"--identity a=x,", "", 2, "is empty"},
	} {
		for n, v := range good {
			if n == c.unset {
				v = ""
			}
			t.Setenv(n, v)
		}
		if status, _, talk := podkey(t, append([]string{"proxy"}, strings.Fields(c.args)...)...); status != c.status || !strings.Contains(talk, c.says) {
			t.Errorf("%s: status %d, %q; want %d with %q", name, status, talk, c.status, c.says)
		}
	}
	t.Setenv("PROXY_PORT", "none")
	if status, _, talk := podkey(t, "proxy-init"); status != 1 || !strings.Contains(talk, "PROXY_PORT") {
		t.Errorf("proxy-init: status %d, %q", status, talk)
	}
}

func TestProxyFlags(t *testing.T) {
	got, err := parseIdentities([]string{"c1=/subscriptions/S/x, 0A", "c2=0b"})
	want := map[string]string{"/subscriptions/s/x": "c1", "0a": "c1", "0b": "c2"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
