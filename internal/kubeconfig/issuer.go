package kubeconfig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Issuer is what a cluster's API server says of the tokens that it issues.
type Issuer struct {
	URL     string          // exactly as in its discovery document
	JWKS    json.RawMessage // its public keys, as they were read
	Version string          // of Kubernetes, such as 1.33.1; empty if it does not tell
}

const (
	maxDocument = 1 << 20 // bytes
	askTime     = 15 * time.Second
)

// StatusError is an answer of the API server that is not 200.
type StatusError struct {
	Path   string
	Status int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the API server answers %s with status %d", e.Path, e.Status)
}

// Hint says what to do about it.
func (e *StatusError) Hint() string {
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return "the kubeconfig's user must be allowed to read it: kubectl create clusterrolebinding NAME --clusterrole=system:service-account-issuer-discovery --user=USER"
	}
	return ""
}

// AskIssuer reads the discovery document, the keys and the version from the
// API server itself, so that the keys come by the same trust as everything
// that kubectl does. With a credential plugin it runs that.
func (a *Access) AskIssuer(ctx context.Context) (Issuer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var out Issuer
	if a.Exec != nil {
		got, err := a.runPlugin(ctx)
		if err != nil {
			return out, err
		}
		a = got
	}
	client, err := a.client()
	if err != nil {
		return out, err
	}
	defer client.CloseIdleConnections()
	raw, err := a.get(ctx, client, "/.well-known/openid-configuration")
	if err != nil {
		return out, err
	}
	var document struct {
		Issuer string `json:"issuer"`
	}
	if err := json.Unmarshal(raw, &document); err != nil || document.Issuer == "" {
		return out, errors.New("the API server's discovery document names no issuer")
	}
	out.URL = document.Issuer
	// The jwks_uri of the document may lead elsewhere; these are the same keys.
	if out.JWKS, err = a.get(ctx, client, "/openid/v1/jwks"); err != nil {
		return out, err
	}
	if !json.Valid(out.JWKS) {
		return out, errors.New("the API server's key set is not JSON")
	}
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	// For show only, so that not being told is no failure.
	if raw, err := a.get(ctx, client, "/version"); err == nil && json.Unmarshal(raw, &version) == nil {
		out.Version = strings.TrimPrefix(version.GitVersion, "v")
	}
	return out, nil
}

func (a *Access) client() (*http.Client, error) {
	tlsConfig, err := a.TLS()
	if err != nil {
		return nil, err
	}
	proxy := http.ProxyFromEnvironment
	if a.ProxyURL != "" {
		u, err := url.Parse(a.ProxyURL)
		if err != nil {
			return nil, errors.New("the proxy-url is not a URL")
		}
		proxy = http.ProxyURL(u)
	}
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: tlsConfig, Proxy: proxy, ForceAttemptHTTP2: true},
		// A redirect would take the credential elsewhere, and bring keys from there.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (a *Access) get(ctx context.Context, client *http.Client, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(a.Server, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	// The API server has one media type for each and refuses who asks for
	// another: key sets are of the second.
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	switch {
	case a.Token != "":
		req.Header.Set("Authorization", "Bearer "+a.Token)
	case a.Username != "":
		req.SetBasicAuth(a.Username, a.Password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{path, resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s of the API server: %w", path, err)
	}
	if len(body) > maxDocument {
		return nil, fmt.Errorf("%s of the API server is longer than %d bytes", path, maxDocument)
	}
	return body, nil
}
