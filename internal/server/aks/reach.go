package aks

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/podkey/podkey/internal/kubeconfig"
)

// Limits of what is read from an API server whose address somebody chose.
const (
	maxAnswer      = 16 << 20 // bytes
	maxRefusal     = 64 << 10 // bytes of an error
	answerTime     = 20 * time.Second
	connectionTime = 10 * time.Second
)

// reach is how the server connects to the API server of a kubeconfig. That
// address is somebody's choice, so it is dialled under the rules of
// [Options.Dial], without a proxy that would do the dialling for us, and never
// by running a program.
func (c *Clusters) reach(a *kubeconfig.Access, trusted bool) (_ *rest.Config, closeAll func(), err error) {
	switch {
	case a.Exec != nil:
		return nil, nil, errors.New("it runs a program (exec), which the server never does; register one of a service account with a token")
	case a.ProxyURL != "":
		return nil, nil, errors.New("it goes through a proxy (proxy-url), where the server could not see what it connects to")
	}
	tlsConfig, err := a.TLS()
	if err != nil {
		return nil, nil, err
	}
	t := &http.Transport{
		DialContext: c.o.Dial(trusted), TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: connectionTime, ResponseHeaderTimeout: answerTime,
		MaxResponseHeaderBytes: 64 << 10, DisableCompression: true, MaxConnsPerHost: 4,
	}
	return &rest.Config{
		Host: a.Server, BearerToken: a.Token, Username: a.Username, Password: a.Password,
		Transport: &guard{t, a},
	}, t.CloseIdleConnections, nil
}

// guard lets through what an API server answers, and nothing else.
type guard struct {
	next   http.RoundTripper
	access *kubeconfig.Access
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		// It would take the credential elsewhere.
		resp.Body.Close()
		return nil, fmt.Errorf("it answers with a redirect (status %d), which an API server does not", resp.StatusCode)
	case resp.StatusCode >= 400:
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		// A server that quotes the request would bring the credential into an
		// error.
		resp.Body = io.NopCloser(strings.NewReader(redact(string(bytes.ToValidUTF8(b, nil)), g.access)))
		resp.ContentLength = -1
	default:
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, nil
}

// redact takes the secrets of a kubeconfig out of a text.
func redact(s string, a *kubeconfig.Access) string {
	basic := ""
	if a.Password != "" {
		basic = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
	}
	for _, secret := range []string{a.Token, a.Password, basic, string(a.Key)} {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "[redacted]")
		}
	}
	return s
}
