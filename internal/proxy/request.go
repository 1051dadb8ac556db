package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// request is the head of a request. Host and port are set for CONNECT alone.
type request struct {
	method string
	host   string // lower-case DNS name, or canonical address without brackets
	port   int
}

// refusal is an answer other than a tunnel. Reason and detail are shown to the
// client; they hold no text of the client's but a host that was parsed.
type refusal struct {
	status int
	reason string // what is wrong, for the status line
	detail string // more, for the body; may be empty
	noBody bool   // for HEAD
}

func (f *refusal) Error() string { return f.reason }

func statusText(status int) string { return http.StatusText(status) }

func malformed(reason string) error { return &refusal{status: http.StatusBadRequest, reason: reason} }

// readRequest reads the head of one request, and no byte more than the reader
// buffers. It is stricter than net/http's: each line ends in CRLF, and whatever
// two readers could take for two different things is refused. The error is a
// *refusal unless the connection failed. With a refusal the request may be nil.
//
// net/http's own parser could not serve: it drops the Host header of a
// request that has an authority, so that the two could not be compared.
func readRequest(r *bufio.Reader) (*request, error) {
	left := maxHead
	line, err := readLine(r, &left)
	if err != nil {
		return nil, err
	}
	method, rest, ok1 := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !isToken(method) || target == "" {
		return nil, malformed("malformed request line")
	}
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return nil, &refusal{status: http.StatusHTTPVersionNotSupported, reason: "only HTTP/1.1 and HTTP/1.0 are served"}
	}
	q := &request{method: method}
	h, err := readHeader(r, &left)
	if err != nil {
		return nil, err
	}
	if method != "CONNECT" {
		if method == http.MethodHead {
			return q, &refusal{status: http.StatusForbidden, reason: "only CONNECT is served", noBody: true}
		}
		return q, nil
	}
	if q.host, q.port, err = parseAuthority(target); err != nil {
		return nil, err
	}
	// A CONNECT has no content (RFC 9110 section 9.3.6). One that announces
	// some wants to be read differently by two readers.
	if h.content {
		return q, malformed("CONNECT with content")
	}
	if h.hosts > 1 {
		return q, malformed("more than one Host header")
	}
	if h.hosts == 1 && !sameAuthority(h.host, q) {
		return q, malformed("the Host header is not the requested host")
	}
	return q, nil
}

// header is what matters of a request's header fields.
type header struct {
	hosts   int
	host    string
	content bool // it announces content, or says something odd about it
}

func readHeader(r *bufio.Reader, left *int) (header, error) {
	var h header
	for {
		line, err := readLine(r, left)
		if err != nil || line == "" {
			return h, err
		}
		// A name that is a token excludes continuation lines, which begin
		// with a blank, and a blank before the colon.
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return h, malformed("malformed header")
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "host":
			h.hosts++
			h.host = value
		case "transfer-encoding":
			h.content = true
		case "content-length":
			h.content = h.content || value != "0"
		}
	}
}

// readLine reads a line that ends in CRLF and returns it without. It takes the
// line's bytes from left and refuses when they are used up.
func readLine(r *bufio.Reader, left *int) (string, error) {
	var b []byte
	for {
		part, err := r.ReadSlice('\n')
		if *left -= len(part); *left < 0 {
			return "", &refusal{status: http.StatusRequestHeaderFieldsTooLarge, reason: "request head too large"}
		}
		b = append(b, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
	line, ok := strings.CutSuffix(string(b), "\r\n")
	if !ok {
		return "", malformed("a line does not end in CRLF")
	}
	for _, c := range []byte(line) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", malformed("control character in the head")
		}
	}
	return line, nil
}

// parseAuthority parses the target of a CONNECT, "host:port". It accepts one
// spelling of each: no user information, no missing port, no leading zero, no
// percent-encoding, no zone, no number that a resolver would take for an
// address although it is not written as one.
func parseAuthority(s string) (host string, port int, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0, malformed("the requested host has no port")
	}
	host, p := s[:i], s[i+1:]
	if strings.ContainsRune(host, '@') {
		return "", 0, malformed("user information before the requested host")
	}
	if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 || p != strconv.Itoa(port) {
		return "", 0, malformed("the requested port is not a number from 1 to 65535")
	}
	if host, err = parseHost(host); err != nil {
		return "", 0, err
	}
	return host, port, nil
}

func parseHost(s string) (string, error) {
	bad := malformed("the requested host is not a name or an address")
	if in, ok := strings.CutPrefix(s, "["); ok {
		in, ok = strings.CutSuffix(in, "]")
		a, err := netip.ParseAddr(in)
		if !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return "", bad
		}
		// An IPv4 address in IPv6's clothes is the address that it maps.
		return a.Unmap().String(), nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if !a.Is4() {
			return "", bad // IPv6 must be in brackets
		}
		return a.String(), nil
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "" || len(name) > 253 {
		return "", bad
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", bad
		}
		for _, c := range []byte(label) {
			// The underscore is not a host name's, but resolvers take it.
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return "", bad
			}
		}
		last = label
	}
	// 127.1, 0x7f.1 and 2130706433 are addresses to inet_aton, and so to
	// many clients and resolvers.
	if last[0] >= '0' && last[0] <= '9' {
		return "", bad
	}
	return name, nil
}

// sameAuthority reports whether a Host header names what the request line
// does. Some clients leave the port out.
func sameAuthority(hostHeader string, q *request) bool {
	if host, port, err := parseAuthority(hostHeader); err == nil {
		return host == q.host && port == q.port
	}
	host, err := parseHost(hostHeader)
	return err == nil && host == q.host
}

// isToken is RFC 9110's token: what methods and header names are made of.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
