package token

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxURL is the longest URL of a foreign document, in bytes.
const maxURL = 2048

// documentURL checks a URL that a stranger chose before anything is sent to
// it: what it may look like is decided here, what it may lead to in
// [Foreign.permitted], on the address that is really dialled. issuer demands
// in addition what OpenID Connect demands of an issuer: no query.
func (f *Foreign) documentURL(raw string, issuer bool) (*url.URL, error) {
	if len(raw) > maxURL {
		return nil, fmt.Errorf("URL is longer than %d bytes", maxURL)
	}
	for i := range len(raw) {
		// Blanks, control characters, backslashes and non-ASCII letters are read
		// differently by different readers of URLs.
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return nil, errors.New("URL has a character that does not belong there")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("not a URL") // the cause quotes it
	}
	host := u.Hostname()
	switch {
	case u.Opaque != "" || host == "" || strings.ContainsAny(u.Host, "%"):
		return nil, errors.New("URL has no plain host")
	case u.User != nil:
		return nil, errors.New("URL has user information")
	case strings.Contains(raw, "#"):
		return nil, errors.New("URL has a fragment")
	case issuer && strings.Contains(raw, "?"):
		return nil, errors.New("URL has a query")
	case strings.HasSuffix(u.Host, ":"):
		return nil, errors.New("URL has an empty port")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, errors.New("URL has an impossible port")
		}
	}
	address, err := netip.ParseAddr(host)
	literal := err == nil
	if !literal && (strings.Contains(host, ":") || endsInNumber(host)) {
		// 2130706433, 0x7f.1 and 127.1 are loopback to some resolvers.
		return nil, errors.New("URL's host is neither a name nor an IP address in its usual form")
	}
	switch {
	case strings.HasPrefix(raw, "https://"):
	case strings.HasPrefix(raw, "http://") && f.AllowLoopback &&
		(literal && address.Unmap().IsLoopback() || host == "localhost"):
	default:
		return nil, errors.New("URL is not https")
	}
	if literal {
		if err := f.permitted(address); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// endsInNumber reports whether a host's last label is a number, as those of
// IPv4 addresses in unusual forms are and those of names never.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil || last == "" || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(strings.ToLower(last), "0x")
}

// AddressError says that an address may not be dialled.
type AddressError struct {
	Addr netip.Addr
	Why  string
}

func (e *AddressError) Error() string {
	return "address " + e.Addr.String() + " is not allowed: " + e.Why
}

// block is a range of addresses that a stranger may not send us to.
type block struct {
	prefix netip.Prefix
	why    string
	unless unless
}

// unless says by which option a block is open.
type unless uint8

const (
	never unless = iota
	ifPrivate
	ifLoopback
)

// blocks are looked at in order; the first that matches decides. The ranges
// are IANA's special-purpose registries', with the metadata addresses of
// clouds that lie in otherwise ordinary ranges before them.
var blocks = [...]block{
	{netip.MustParsePrefix("168.63.129.16/32"), "metadata", never},   // Azure's wire server
	{netip.MustParsePrefix("100.100.100.200/32"), "metadata", never}, // Alibaba
	{netip.MustParsePrefix("fd00:ec2::/32"), "metadata", never},      // AWS
	{netip.MustParsePrefix("fd20:ce::/32"), "metadata", never},       // Google
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified", never},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback", ifLoopback},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local", never},
	{netip.MustParsePrefix("10.0.0.0/8"), "private", ifPrivate},
	{netip.MustParsePrefix("172.16.0.0/12"), "private", ifPrivate},
	{netip.MustParsePrefix("192.168.0.0/16"), "private", ifPrivate},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers", ifPrivate},
	{netip.MustParsePrefix("192.0.0.0/24"), "special", never}, // Oracle's metadata among them
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation", never},
	{netip.MustParsePrefix("192.88.99.0/24"), "special", never},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking", ifPrivate},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation", never},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation", never},
	{netip.MustParsePrefix("224.0.0.0/3"), "multicast or reserved", never},
	{netip.MustParsePrefix("::1/128"), "loopback", ifLoopback},
	{netip.MustParsePrefix("::/96"), "unspecified", never},
	{netip.MustParsePrefix("fc00::/7"), "private", ifPrivate},
	{netip.MustParsePrefix("2001::/23"), "special", never}, // Teredo among them: it holds IPv4
	{netip.MustParsePrefix("2001:db8::/32"), "documentation", never},
	{netip.MustParsePrefix("2002::/16"), "holds IPv4", never},
	{netip.MustParsePrefix("3fff::/20"), "documentation", never},
}

// unicast6 is all of IPv6 that is, or may become, an ordinary address.
var unicast6 = netip.MustParsePrefix("2000::/3")

// permitted says whether an address may be dialled for a stranger's document.
// An IPv4 address inside an IPv6 one counts as what it is.
func (f *Foreign) permitted(a netip.Addr) error {
	plain := a.Unmap()
	if plain.Zone() != "" {
		return &AddressError{plain, "it has a zone"}
	}
	for _, b := range blocks {
		if !b.prefix.Contains(plain) {
			continue
		}
		if b.unless == ifPrivate && f.AllowPrivate || b.unless == ifLoopback && f.AllowLoopback {
			return nil
		}
		return &AddressError{plain, b.why}
	}
	if !plain.IsValid() || plain.Is6() && !unicast6.Contains(plain) {
		// Link-local, multicast, NAT64 (which holds IPv4), and the rest.
		return &AddressError{plain, "not an ordinary address"}
	}
	return nil
}
