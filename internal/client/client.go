// Package client is the typed client of our own public APIs.
//
// Everything that is not the server reaches it through this package: the
// command line, the test kit, later the console. It speaks the same protocol
// as Azure's SDKs, with the operator's credentials, over the server's one
// listener, whatever the host name, so that no name needs to resolve. It
// never sends a token to any other address, and no error carries one.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Client calls one server as one principal. Safe for concurrent use.
type Client struct {
	Operator Operator
	HTTP     *http.Client // dials the server for every host and trusts its CAs
	Now      func() time.Time
	// Assertion is asked for a client assertion, such as a federated token,
	// instead of using the operator's client secret. May be nil.
	Assertion func() (string, error)

	mu     sync.Mutex
	tokens map[string]cachedToken // by resource
}

type cachedToken struct {
	value   string
	expires time.Time
}

// Open makes a client for the server that uses the data directory.
func Open(dir string) (*Client, error) {
	op, err := ReadOperator(dir)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, file := range []string{op.CAFile, op.AzureCAFile} {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read CA of the server: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA of the server: no certificate in %s", file)
		}
	}
	return New(*op, roots), nil
}

// New makes a client that trusts roots.
func New(op Operator, roots *x509.CertPool) *Client {
	return &Client{
		Operator: op,
		HTTP:     &http.Client{Transport: Transport(op.Listen, roots), Timeout: time.Minute},
		Now:      time.Now,
		tokens:   map[string]cachedToken{},
	}
}

// Transport returns a transport that reaches the listener at addr under every
// host name, and trusts roots alone.
func Transport(addr string, roots *x509.CertPool) *http.Transport {
	var d net.Dialer
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		ForceAttemptHTTP2:   true,
	}
}

// APIError is a refusal by the server, as any plane words it.
type APIError struct {
	Status  int
	Code    string
	Message string
	URL     string // without query
}

func (e *APIError) Error() string {
	return fmt.Sprintf("%s (%s, HTTP %d)", e.Message, e.Code, e.Status)
}

// UnreachableError says that the server does not answer.
type UnreachableError struct {
	Addr string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the server at %s does not answer: %v", e.Addr, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Hint says what to type next.
func (e *UnreachableError) Hint() string { return "start it with: podkey server, and the same --data" }

// IsNotFound reports whether err is the server's word that something does not
// exist.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*APIError](err)
	return ok && e.Status == http.StatusNotFound
}

// Token returns an access token for a resource, such as
// https://management.azure.com/, by the operator's client secret or the
// client's assertion. Tokens are kept until five minutes before they expire.
func (c *Client) Token(ctx context.Context, resource string) (string, error) {
	c.mu.Lock()
	t, ok := c.tokens[resource]
	c.mu.Unlock()
	if ok && c.Now().Before(t.expires) {
		return t.value, nil
	}
	form := url.Values{
		"grant_type": {"client_credentials"},
		"client_id":  {c.Operator.ClientID},
		"scope":      {resource + "/.default"},
	}
	if c.Assertion != nil {
		assertion, err := c.Assertion()
		if err != nil {
			return "", fmt.Errorf("sign in: %w", err)
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	} else {
		form.Set("client_secret", c.Operator.ClientSecret)
	}
	endpoint := c.Operator.Endpoints.Login + "/" + c.Operator.TenantID + "/oauth2/v2.0/token"
	req, err := http.NewRequestWithContext(ctx, "POST", endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := c.send(req, &answer); err != nil {
		return "", fmt.Errorf("sign in: %w", err)
	}
	c.mu.Lock()
	c.tokens[resource] = cachedToken{answer.AccessToken, c.Now().Add(time.Duration(answer.ExpiresIn)*time.Second - 5*time.Minute)}
	c.mu.Unlock()
	return answer.AccessToken, nil
}

// Manage calls the management API: path begins with a slash and carries its
// own api-version. in and out are JSON; either may be nil.
func (c *Client) Manage(ctx context.Context, method, path string, in, out any) error {
	return c.call(ctx, method, c.Operator.Endpoints.Management+path, c.Operator.Endpoints.Management, in, out)
}

// Vault calls a vault's data plane, like Manage.
func (c *Client) Vault(ctx context.Context, vault, method, path string, in, out any) error {
	suffix := c.Operator.Endpoints.VaultSuffix
	return c.call(ctx, method, "https://"+vault+suffix+path, "https://"+strings.TrimPrefix(suffix, "."), in, out)
}

func (c *Client) call(ctx context.Context, method, target, resource string, in, out any) error {
	token, err := c.Token(ctx, resource)
	if err != nil {
		return err
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.send(req, out)
}

// send performs the request and decodes a 2xx answer into out, any other into
// an APIError.
func (c *Client) send(req *http.Request, out any) error {
	resp, err := c.HTTP.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // its text would repeat the URL with its query
		}
		return &UnreachableError{c.Operator.Listen, err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", req.URL.Host, err)
	}
	if resp.StatusCode/100 != 2 {
		return apiError(resp, body)
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("answer of %s is not the JSON that was expected: %w", req.URL.Host, err)
	}
	return nil
}

// apiError reads the error shapes: Kubernetes' Status, ARM's and the vault's
// nested one, and the token service's flat one.
func apiError(resp *http.Response, body []byte) error {
	e := &APIError{Status: resp.StatusCode, URL: resp.Request.URL.Host + resp.Request.URL.Path}
	var nested struct {
		Error struct{ Code, Message string }
	}
	var flat struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	var status struct{ Kind, Reason, Message string }
	switch {
	case json.Unmarshal(body, &status) == nil && status.Kind == "Status":
		e.Code, e.Message = status.Reason, status.Message
	case json.Unmarshal(body, &nested) == nil && nested.Error.Code != "":
		e.Code, e.Message = nested.Error.Code, nested.Error.Message
	case json.Unmarshal(body, &flat) == nil && flat.Error != "":
		e.Code = flat.Error
		e.Message, _, _ = strings.Cut(flat.Description, " Trace ID:")
	default:
		e.Code, e.Message = "UnexpectedAnswer", resp.Status
	}
	return e
}

// As returns a client of the same server that signs in as somebody else.
func (c *Client) As(op Operator) *Client {
	return &Client{Operator: op, HTTP: c.HTTP, Now: c.Now, tokens: map[string]cachedToken{}}
}

// IsCode reports whether err is the server's refusal with this code.
func IsCode(err error, code string) bool {
	e, ok := errors.AsType[*APIError](err)
	return ok && e.Code == code
}
