package token

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	fetchTime    = 5 * time.Second // for both documents of an issuer, unless set otherwise
	dialTime     = 2 * time.Second // for one address
	maxDocument  = 1 << 20         // bytes
	maxRedirects = 3
	maxAddresses = 8 // of a host that are tried
)

// fetch gets an issuer's keys from its documents.
func (f *Foreign) fetch(ctx context.Context, issuer string) (map[string]*rsa.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	base, err := f.documentURL(issuer, true)
	if err != nil {
		return nil, &ForeignError{Kind: Unreachable, Issuer: issuer, URL: issuer, Err: err}
	}
	release, ok := f.slots.acquire(ctx, base.Host)
	if !ok {
		return nil, &ForeignError{Kind: Unreachable, Issuer: issuer, Err: errors.New("too many fetches are under way")}
	}
	defer release()
	where := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	document, err := f.get(ctx, issuer, where)
	if err != nil {
		return nil, err
	}
	named, keysAt, err := parseDiscovery(document)
	if err == nil && named != issuer {
		err = fmt.Errorf("the document is of issuer %s", quote(named))
	}
	var keysURL *url.URL
	if err == nil {
		keysURL, err = f.documentURL(keysAt, false)
	}
	if err == nil && base.Scheme == "https" && keysURL.Scheme != "https" {
		err = errors.New("jwks_uri is not https")
	}
	if err != nil {
		return nil, &ForeignError{Kind: Unparsable, Issuer: issuer, URL: where, Err: err}
	}
	if document, err = f.get(ctx, issuer, keysAt); err != nil {
		return nil, err
	}
	keys, err := parseKeySet(document)
	if err != nil {
		return nil, &ForeignError{Kind: Unparsable, Issuer: issuer, URL: keysAt, Err: err}
	}
	return keys, nil
}

// parseDiscovery reads what we need of an OpenID Connect discovery document.
func parseDiscovery(data []byte) (issuer, jwksURI string, err error) {
	err = members(data, func(name, value []byte) (err error) {
		switch string(name) {
		case "issuer":
			issuer, err = stringValue(value)
		case "jwks_uri":
			jwksURI, err = stringValue(value)
		}
		return err
	})
	if err == nil && (issuer == "" || jwksURI == "") {
		err = errors.New("issuer or jwks_uri is missing")
	}
	return issuer, jwksURI, err
}

// get reads one document.
func (f *Foreign) get(ctx context.Context, issuer, where string) ([]byte, error) {
	fail := func(kind ForeignKind, err error) error {
		return &ForeignError{Kind: kind, Issuer: issuer, URL: where, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, fail(Unreachable, err)
	}
	// Kubernetes answers 406 for its keys to whoever does not take the second.
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	req.Header.Set("User-Agent", "podkey")
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, fail(Unreachable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fail(Unreachable, fmt.Errorf("status %d", resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil {
		// A server that sees us hang up may end its answer properly before the
		// connection is gone: what came is then not all.
		err = ctx.Err()
	}
	switch {
	case err != nil:
		return nil, fail(Unreachable, err)
	case len(body) > maxDocument:
		return nil, fail(Unparsable, fmt.Errorf("longer than %d bytes", maxDocument))
	}
	return body, nil
}

// newClient makes the client for foreign documents. It keeps nothing between
// requests: no cookies, no connections, no compression to unfold, no proxy
// that would do the dialling for us.
func (f *Foreign) newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            f.dial,
			TLSClientConfig:        &tls.Config{RootCAs: f.RootCAs, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if from := via[0].URL; req.URL.Scheme != from.Scheme || req.URL.Host != from.Host || req.URL.User != nil {
				return errors.New("redirect to another host")
			}
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
}

// dial connects to a host at one of its permitted addresses. What is permitted
// is decided on the address that the socket is about to connect to, so that
// no answer of a DNS server can lead elsewhere.
func (f *Foreign) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	addresses, err := f.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTime, KeepAlive: -1, ControlContext: f.control}
	err = errors.New("host has no address")
	for _, a := range addresses[:min(len(addresses), maxAddresses)] {
		var conn net.Conn
		if conn, err = d.DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (f *Foreign) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if f.Resolve != nil {
		return f.Resolve(ctx, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// control sees the address that a socket is about to connect to.
func (f *Foreign) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return f.permitted(a.Addr())
}
