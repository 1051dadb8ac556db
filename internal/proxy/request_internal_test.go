package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// What is accepted has one meaning: net/http reads the same host in it, the
// bytes behind the head are left alone, and the parsed authority parses to
// itself.
func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		"CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nHost: kv1.vault.azure.net:443\r\n\r\nrest",
		"CONNECT [::1]:8443 HTTP/1.0\r\n\r\n",
		"CONNECT A.b.:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"CONNECT u@a:443 HTTP/1.1\r\n\r\n",
		"\r\n", "HEAD / HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), 16)
		q, err := readRequest(r)
		if err != nil {
			var refused *refusal
			if !errors.As(err, &refused) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("error %v of an unknown kind", err)
			}
			if refused != nil && strings.ContainsAny(refused.reason+refused.detail, "\r\n") {
				t.Fatalf("reason %q could split the answer", refused.reason)
			}
			return
		}
		end := bytes.Index(in, []byte("\r\n\r\n"))
		if end < 0 || end+4 > maxHead {
			t.Fatalf("a head without end was accepted: %q", in)
		}
		if rest, _ := io.ReadAll(r); !bytes.Equal(rest, in[end+4:]) {
			t.Fatalf("behind the head is %q, want %q", rest, in[end+4:])
		}
		if q.method != "CONNECT" {
			return
		}
		host, port, err := parseAuthority(net.JoinHostPort(q.host, strconv.Itoa(q.port)))
		if err != nil || host != q.host || port != q.port {
			t.Fatalf("%q %d parses to %q %d, %v", q.host, q.port, host, port, err)
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			t.Fatalf("net/http refuses what is accepted: %v", err)
		}
		if std.Method != q.method || std.URL.Port() != strconv.Itoa(q.port) || std.ContentLength > 0 {
			t.Fatalf("net/http reads %s %s, want port %d", std.Method, std.URL, q.port)
		}
		name := strings.TrimSuffix(strings.ToLower(std.URL.Hostname()), ".")
		if a, err := netip.ParseAddr(name); err == nil {
			name = a.Unmap().String()
		}
		if name != q.host {
			t.Fatalf("net/http reads host %q, want %q", name, q.host)
		}
	})
}
