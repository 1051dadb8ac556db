package proxy_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/proxy"
)

// Every head that is not exactly right is refused with its status, without a
// connection to the server.
func TestRefusedHeads(t *testing.T) {
	r := start(t, serveTCP(t, echo), proxy.Proxy{})
	const ok = "kv1.vault.azure.net:443"
	for _, tt := range []struct {
		name, head string
		status     int
	}{
		{"other host", "CONNECT www.example.com:443 HTTP/1.1\r\n\r\n", 403},
		{"allowed host as a suffix", "CONNECT kv1.vault.azure.net.example.com:443 HTTP/1.1\r\n\r\n", 403},
		{"allowed host without its dot", "CONNECT evilvault.azure.net:443 HTTP/1.1\r\n\r\n", 403},
		{"other port", "CONNECT kv1.vault.azure.net:22 HTTP/1.1\r\n\r\n", 403},
		{"IPv4 address", "CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", 403},
		{"IPv6 address", "CONNECT [::1]:443 HTTP/1.1\r\n\r\n", 403},
		{"metadata address", "CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n", 403},

		{"other method, absolute", "GET http://kv1.vault.azure.net/ HTTP/1.1\r\nHost: kv1.vault.azure.net\r\n\r\n", 403},
		{"other method, a browser after rebinding", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
		{"other method, authority", "GET " + ok + " HTTP/1.1\r\n\r\n", 403},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n\r\n", 403},
		{"method in lower case", "connect " + ok + " HTTP/1.1\r\n\r\n", 403},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"HTTP/0.9", "GET /\r\n", 400},
		{"SOCKS 5", "\x05\x01\x00\r\n", 400},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\n", 400},
		{"empty line", "\r\n", 400},

		{"user information", "CONNECT user:secret@" + ok + " HTTP/1.1\r\n\r\n", 400},
		{"user information with the host in front", "CONNECT kv1.vault.azure.net:443@evil.example:443 HTTP/1.1\r\n\r\n", 400},
		{"no port", "CONNECT kv1.vault.azure.net HTTP/1.1\r\n\r\n", 400},
		{"empty port", "CONNECT kv1.vault.azure.net: HTTP/1.1\r\n\r\n", 400},
		{"port 0", "CONNECT kv1.vault.azure.net:0 HTTP/1.1\r\n\r\n", 400},
		{"port 65536", "CONNECT kv1.vault.azure.net:65536 HTTP/1.1\r\n\r\n", 400},
		{"port that overflows to 443", "CONNECT kv1.vault.azure.net:4294967739 HTTP/1.1\r\n\r\n", 400},
		{"port with a zero in front", "CONNECT kv1.vault.azure.net:0443 HTTP/1.1\r\n\r\n", 400},
		{"port with a sign", "CONNECT kv1.vault.azure.net:+443 HTTP/1.1\r\n\r\n", 400},
		{"port by name", "CONNECT kv1.vault.azure.net:https HTTP/1.1\r\n\r\n", 400},
		{"two ports", "CONNECT kv1.vault.azure.net:443:443 HTTP/1.1\r\n\r\n", 400},
		{"URL", "CONNECT https://" + ok + "/ HTTP/1.1\r\n\r\n", 400},
		{"path", "CONNECT /kv1.vault.azure.net:443 HTTP/1.1\r\n\r\n", 400},
		{"percent-encoding", "CONNECT kv1%2evault.azure.net:443 HTTP/1.1\r\n\r\n", 400},
		{"not ASCII", "CONNECT kv1.vault.\xd0\xb0zure.net:443 HTTP/1.1\r\n\r\n", 400},
		{"empty host", "CONNECT :443 HTTP/1.1\r\n\r\n", 400},
		{"empty label", "CONNECT kv1..vault.azure.net:443 HTTP/1.1\r\n\r\n", 400},
		{"two closing dots", "CONNECT kv1.vault.azure.net..:443 HTTP/1.1\r\n\r\n", 400},
		{"short IPv4", "CONNECT 127.1:443 HTTP/1.1\r\n\r\n", 400},
		{"decimal IPv4", "CONNECT 2130706433:443 HTTP/1.1\r\n\r\n", 400},
		{"hexadecimal IPv4", "CONNECT 0x7f000001:443 HTTP/1.1\r\n\r\n", 400},
		{"octal IPv4", "CONNECT 0177.0.0.01:443 HTTP/1.1\r\n\r\n", 400},
		{"IPv6 without brackets", "CONNECT ::1:443 HTTP/1.1\r\n\r\n", 400},
		{"IPv6 with a zone", "CONNECT [fe80::1%25lo]:443 HTTP/1.1\r\n\r\n", 400},
		{"IPv4 in brackets", "CONNECT [127.0.0.1]:443 HTTP/1.1\r\n\r\n", 400},
		{"open bracket", "CONNECT [::1:443 HTTP/1.1\r\n\r\n", 400},

		{"Host of another", "CONNECT " + ok + " HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 400},
		{"Host with another port", "CONNECT " + ok + " HTTP/1.1\r\nHost: kv1.vault.azure.net:80\r\n\r\n", 400},
		{"Host that is empty", "CONNECT " + ok + " HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"two Hosts", "CONNECT " + ok + " HTTP/1.1\r\nHost: " + ok + "\r\nHost: " + ok + "\r\n\r\n", 400},

		{"content length", "CONNECT " + ok + " HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400},
		{"two content lengths", "CONNECT " + ok + " HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400},
		{"empty content length", "CONNECT " + ok + " HTTP/1.1\r\nContent-Length: \r\n\r\n", 400},
		{"signed content length", "CONNECT " + ok + " HTTP/1.1\r\nContent-Length: +0\r\n\r\n", 400},
		{"chunked", "CONNECT " + ok + " HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},

		{"bare LF", "CONNECT " + ok + " HTTP/1.1\n\n", 400},
		{"bare LF in the header", "CONNECT " + ok + " HTTP/1.1\r\nX: a\nHost: " + ok + "\r\n\r\n", 400},
		{"bare CR", "CONNECT " + ok + " HTTP/1.1\r\nX: a\rHost: evil.example\r\n\r\n", 400},
		{"NUL", "CONNECT " + ok + " HTTP/1.1\r\nX: a\x00b\r\n\r\n", 400},
		{"continuation line", "CONNECT " + ok + " HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400},
		{"blank before the colon", "CONNECT " + ok + " HTTP/1.1\r\nHost : " + ok + "\r\n\r\n", 400},
		{"header without a colon", "CONNECT " + ok + " HTTP/1.1\r\nHost\r\n\r\n", 400},
		{"header without a name", "CONNECT " + ok + " HTTP/1.1\r\n: a\r\n\r\n", 400},
		{"two blanks", "CONNECT  " + ok + " HTTP/1.1\r\n\r\n", 400},
		{"tab", "CONNECT\t" + ok + "\tHTTP/1.1\r\n\r\n", 400},
		{"five words", "CONNECT " + ok + " evil HTTP/1.1\r\n\r\n", 505},
		{"HTTP/1.2", "CONNECT " + ok + " HTTP/1.2\r\n\r\n", 505},

		{"long request line", "CONNECT " + strings.Repeat("a", 9000) + ":443 HTTP/1.1\r\n\r\n", 431},
		{"long header line", "CONNECT " + ok + " HTTP/1.1\r\nX: " + strings.Repeat("a", 9000) + "\r\n\r\n", 431},
		{"many header lines", "CONNECT " + ok + " HTTP/1.1\r\n" + strings.Repeat("X: a\r\n", 2000) + "\r\n", 431},
		{"a head without end", strings.Repeat("a", 200_000), 431},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := answers(t, r.send(t, tt.head))
			if len(got) != 1 || got[0].StatusCode != tt.status {
				t.Fatalf("%d answers, the first %+v, want one with status %d", len(got), got, tt.status)
			}
			b, _ := io.ReadAll(got[0].Body)
			if len(b) == 0 || len(b) > 500 || strings.Contains(string(b), "secret") {
				t.Errorf("body %q", b)
			}
			if !got[0].Close || got[0].Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("header %v", got[0].Header)
			}
			if tt.status == 403 && !strings.Contains(string(b), "unreachable") {
				t.Errorf("body %q lacks the word that SDKs look for", b)
			}
		})
	}
	if n := r.dials.Load(); n != 0 {
		t.Errorf("refused requests dialled %d times", n)
	}
	if strings.Contains(r.log.String(), "secret") {
		t.Error("the log has what a client sent")
	}
}

func TestAcceptedHeads(t *testing.T) {
	r := start(t, serveTCP(t, echo), proxy.Proxy{Allow: func(host string, port int) bool {
		switch fmt.Sprintf("%s %d", host, port) {
		case "kv1.vault.azure.net 443", "127.0.0.1 8443", "::1 8443":
			return true
		}
		return false
	}})
	for name, head := range map[string]string{
		"HTTP/1.1":               "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nHost: kv1.vault.azure.net:443\r\n\r\n",
		"HTTP/1.0, as Python":    "CONNECT kv1.vault.azure.net:443 HTTP/1.0\r\n\r\n",
		"Host without port":      "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nHost: kv1.vault.azure.net\r\n\r\n",
		"other case":             "CONNECT KV1.Vault.Azure.Net:443 HTTP/1.1\r\nhost: kv1.vault.azure.net:443\r\n\r\n",
		"closing dot":            "CONNECT kv1.vault.azure.net.:443 HTTP/1.1\r\nHost: kv1.vault.azure.net:443\r\n\r\n",
		"no content":             "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"credentials, unneeded":  "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
		"allowed address":        "CONNECT 127.0.0.1:8443 HTTP/1.1\r\n\r\n",
		"allowed IPv6 address":   "CONNECT [0:0:0:0:0:0:0:1]:8443 HTTP/1.1\r\n\r\n",
		"IPv4 in IPv6's clothes": "CONNECT [::ffff:127.0.0.1]:8443 HTTP/1.1\r\n\r\n",
		"header of 7 KiB":        "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nX: " + strings.Repeat("a", 7000) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial(t)
			io.WriteString(c, head)
			expect(t, c, "HTTP/1.1 200 Connection established\r\n\r\n")
			io.WriteString(c, "through")
			expect(t, c, "through")
		})
	}
}

// The person who typed the proxy's URL wrong is told what is wrong with it.
func TestUserInformationIsNamed(t *testing.T) {
	r := start(t, serveTCP(t, echo), proxy.Proxy{})
	got := r.send(t, "CONNECT user:secret@kv1.vault.azure.net:443 HTTP/1.1\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request: user information before the requested host\r\n") {
		t.Errorf("%q", got)
	}
}

// What follows a refused request, in the same segment or later, is never read
// as a request.
func TestNothingIsSmuggledBehindARefusal(t *testing.T) {
	r := start(t, serveTCP(t, echo), proxy.Proxy{})
	const good = "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nHost: kv1.vault.azure.net:443\r\n\r\n"
	for name, first := range map[string]string{
		"other host":     "CONNECT evil.example:443 HTTP/1.1\r\n\r\n",
		"content length": "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"keep-alive":     "GET http://evil.example/ HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",
		"POST":           "POST http://evil.example/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
	} {
		if got := answers(t, r.send(t, first+good)); len(got) != 1 || got[0].StatusCode < 400 {
			t.Errorf("%s: %d answers, the first %+v", name, len(got), got[0])
		}
	}
	if n := r.dials.Load(); n != 0 {
		t.Errorf("dialled %d times", n)
	}
}

// What follows an accepted request is the tunnel's, whatever it looks like.
func TestEarlyBytesBelongToTheTunnel(t *testing.T) {
	r := start(t, serveTCP(t, echo), proxy.Proxy{})
	const early = "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"
	c := r.dial(t)
	io.WriteString(c, "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\n\r\n"+early)
	expect(t, c, "HTTP/1.1 200 Connection established\r\n\r\n"+early)
	c.CloseWrite()
	expectEOF(t, c)
	if n := r.dials.Load(); n != 1 {
		t.Errorf("dialled %d times", n)
	}
}

// A client that sends its head slowly is cut off at the same time as one that
// sends nothing.
func TestSlowHead(t *testing.T) {
	const limit = 80 * time.Millisecond
	r := start(t, serveTCP(t, echo), proxy.Proxy{HeadTimeout: limit})
	for name, head := range map[string]string{"silent": "", "half a head": "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nX: "} {
		c := r.dial(t)
		io.WriteString(c, head)
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%s: answered %q", name, b)
		}
	}

	began := time.Now()
	c := r.dial(t)
	io.WriteString(c, "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\n")
	for one := make([]byte, 1); ; {
		// The read's deadline is the pause between two bytes.
		c.SetReadDeadline(time.Now().Add(limit / 8))
		_, err := c.Read(one)
		if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
			break
		}
		if time.Since(began) > patience {
			t.Fatal("a byte now and then keeps the connection")
		}
		io.WriteString(c, "X")
	}
	if n := r.dials.Load(); n != 0 {
		t.Errorf("dialled %d times", n)
	}
}

func TestTooManyConnections(t *testing.T) {
	r := start(t, serveTCP(t, echo), proxy.Proxy{MaxConns: 2})
	one, two := r.tunnel(t), r.tunnel(t)
	b, err := io.ReadAll(r.dial(t))
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 503 ") {
		t.Fatalf("%q, %v", b, err)
	}
	io.WriteString(one, "x")
	expect(t, one, "x")
	two.Close()
	// The place is free as soon as the proxy has seen the end.
	for deadline := time.Now().Add(patience); ; {
		c := r.dial(t)
		io.WriteString(c, "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\n\r\n")
		line := make([]byte, len("HTTP/1.1 200"))
		if io.ReadFull(c, line); string(line) == "HTTP/1.1 200" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a closed connection is never free again")
		}
		c.Close()
	}
}
