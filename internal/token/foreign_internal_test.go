package token

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

// TestIssuersAreBounded: whoever can write credentials for many issuers
// cannot fill the memory with their keys.
func TestIssuersAreBounded(t *testing.T) {
	var f Foreign
	f.start()
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entry("https://first.test/", now)
	busy := f.entry("https://busy.test/", now.Add(time.Second))
	busy.busy = make(chan struct{})
	for i := range 3 * maxIssuers {
		now = now.Add(time.Second)
		f.entry(fmt.Sprintf("https://%d.test/", i), now)
		f.entry("https://first.test/", now)
		if len(f.issuers) > maxIssuers {
			t.Fatalf("%d issuers are kept", len(f.issuers))
		}
	}
	if f.issuers["https://busy.test/"] != busy {
		t.Error("an issuer with a fetch under way was forgotten")
	}
	if f.issuers[fmt.Sprintf("https://%d.test/", 3*maxIssuers-1)] == nil || f.issuers["https://0.test/"] != nil {
		t.Error("not the issuer that was used longest ago is forgotten")
	}
}

func TestTheSocketsAddressIsChecked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, allow := range []bool{false, true} {
		f := &Foreign{AllowLoopback: allow}
		d := net.Dialer{ControlContext: f.control}
		conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if _, refused := errors.AsType[*AddressError](err); refused == allow {
			t.Errorf("loopback allowed %t: %v", allow, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	f := &Foreign{}
	if err := f.control(t.Context(), "tcp", "no address", nil); err == nil {
		t.Error("an address that is none is permitted")
	}
}

func TestOrdinaryAddressesArePermitted(t *testing.T) {
	f := &Foreign{}
	for _, a := range []string{
		"1.1.1.1:443", "9.255.255.255:443", "11.0.0.0:443", "172.15.255.255:443", "172.32.0.0:443", "192.167.255.255:443", "192.169.0.0:443",
		"100.63.255.255:443", "100.128.0.0:443", "168.63.129.15:443", "223.255.255.255:443", "[2606:4700::1111]:443", "[2a00::1]:443", "[2003::1]:443", "[2001:4860::8888]:443", "[::ffff:1.1.1.1]:443",
	} {
		if err := f.control(t.Context(), "tcp", a, nil); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}
