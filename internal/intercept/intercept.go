// Package intercept redirects what a pod sends to the instance metadata
// address to the proxy beside it, in the network namespace that they share.
//
// It owns one nftables table, podkey_proxy, and touches no other: rules that a
// node, a service mesh or an older initialiser made stay as they are. It
// speaks to the kernel by netlink, so that the image needs no iptables and no
// shell, and guarantees that the whole table is replaced in one transaction:
// installing twice gives the same rules as installing once, and a failure
// leaves what was there before.
//
// Only IPv4 is redirected, because the metadata address has no IPv6 form.
package intercept

import (
	"fmt"
	"net/netip"
	"strconv"
)

// The names and numbers of proxies that other images brought, kept so that
// manifests written for those work.
const (
	DefaultProxyPort    = 8000
	DefaultProxyUID     = 1501
	DefaultMetadataIP   = "169.254.169.254"
	DefaultMetadataPort = 80
)

// Redirect is one redirection.
type Redirect struct {
	Metadata  netip.AddrPort // what is redirected, IPv4
	ProxyPort uint16         // where to: this port on the loopback address
	ProxyUID  uint32         // whose connections are let through: the proxy's own
}

// FromEnv reads PROXY_PORT, METADATA_IP, METADATA_PORT and PROXY_UID, each
// with its default.
func FromEnv(getenv func(string) string) (Redirect, error) {
	var r Redirect
	port, err := number(getenv, "PROXY_PORT", DefaultProxyPort, 1, 1<<16-1)
	if err != nil {
		return r, err
	}
	metadataPort, err := number(getenv, "METADATA_PORT", DefaultMetadataPort, 1, 1<<16-1)
	if err != nil {
		return r, err
	}
	// The largest number is no user: the kernel means "unchanged" by it.
	uid, err := number(getenv, "PROXY_UID", DefaultProxyUID, 0, 1<<32-2)
	if err != nil {
		return r, err
	}
	text := getenv("METADATA_IP")
	if text == "" {
		text = DefaultMetadataIP
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || !ip.Is4() {
		return r, fmt.Errorf("METADATA_IP is %q: it must be an IPv4 address", text)
	}
	return Redirect{
		Metadata:  netip.AddrPortFrom(ip, uint16(metadataPort)),
		ProxyPort: uint16(port), ProxyUID: uint32(uid),
	}, nil
}

func number(getenv func(string) string, name string, byDefault, least, most uint64) (uint64, error) {
	text := getenv(name)
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is %q: it must be a number from %d to %d", name, text, least, most)
	}
	return n, nil
}
