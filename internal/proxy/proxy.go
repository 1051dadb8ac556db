// Package proxy is the loopback HTTP CONNECT proxy through which a child
// process reaches Podkey under Azure's names.
//
// A client that is told of the proxy (HTTPS_PROXY) asks it for a tunnel to
// login.microsoftonline.com:443, say, and speaks TLS through the tunnel with
// whoever is at the other end. Here that is always the Podkey server: the
// proxy resolves no name and dials no address that a client names. A host is
// only looked at to say yes or no, so the proxy can be made to reach nothing
// but Podkey, and what is not Podkey's is refused at once instead of leaking
// to the real Azure.
//
// It guarantees that it serves loopback listeners only; that one connection
// carries one request, so that nothing behind a refused request is ever read
// as another; that size and time of a request's head, idle time of a tunnel
// and number of connections are bounded; and that no goroutine or connection
// outlives [Proxy.Serve].
package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// Limits that are not options.
const (
	// maxHead bounds a request's head: request line and header. Clients
	// send some hundred bytes.
	maxHead = 8 << 10

	dialTimeout   = 10 * time.Second
	answerTimeout = 5 * time.Second

	// After a refusal the rest of what the client sent is read and dropped,
	// within these bounds. To close with unread data makes the kernel send
	// a reset, which can destroy the answer before the client has read it.
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// Proxy is a CONNECT proxy with one destination. Allow and Dial must be set.
// Its fields must not be changed while it serves.
type Proxy struct {
	// Allow reports whether host and port are Podkey's. The host is a
	// lower-case DNS name without closing dot, or an IP address in its
	// canonical text, without brackets; the port is 1 to 65535. An Allow
	// that knows names only refuses every address.
	Allow func(host string, port int) bool

	// Dial opens a connection to the Podkey server. It should be plain TCP,
	// so that half a connection can be closed.
	Dial func(ctx context.Context) (net.Conn, error)

	// Log is told of tunnels (debug) and refusals (info); nil is silent.
	Log *slog.Logger

	HeadTimeout time.Duration // for a request's whole head to arrive; 0 means 10 s
	IdleTimeout time.Duration // of a tunnel without a byte either way; 0 means 15 min
	MaxConns    int           // at once; one more is answered 503; 0 means 512
}

// ErrNotLoopback is returned for a listener that others than this machine
// could reach.
var ErrNotLoopback = errors.New("the proxy serves only a TCP listener on a loopback address")

// Serve accepts connections until ctx ends, which is no error, or the listener
// fails. It closes the listener and every connection, and returns when the
// last of its goroutines has ended.
func (p *Proxy) Serve(ctx context.Context, ln net.Listener) error {
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		ln.Close()
		return fmt.Errorf("%w, not on %s", ErrNotLoopback, ln.Addr())
	}
	s := &server{
		Proxy: *p,
		slots: make(chan struct{}, cmpOr(p.MaxConns, 512)),
		conns: map[io.Closer]bool{ln: true},
	}
	s.HeadTimeout = cmpOr(p.HeadTimeout, 10*time.Second)
	s.IdleTimeout = cmpOr(p.IdleTimeout, 15*time.Minute)
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		<-ctx.Done()
		s.closeAll()
	})

	for pause := time.Duration(0); ; {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			// Failures that pass: no descriptors left, or a client that went
			// away while it waited.
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
				continue
			}
			return fmt.Errorf("proxy: %w", err)
		}
		pause = 0
		select {
		case s.slots <- struct{}{}:
		default:
			// The answer fits the socket's buffer, so this does not hold
			// up the loop.
			s.answer(conn, &refusal{status: 503, reason: "too many connections"})
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-s.slots }()
			defer s.track(conn)()
			s.serve(ctx, conn)
		})
	}
}

func cmpOr[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// server is a Proxy with its defaults filled in, while it serves.
type server struct {
	Proxy
	slots chan struct{}

	mu    sync.Mutex
	conns map[io.Closer]bool // open ones, and the listener; nil when all have been closed
}

// track makes closeAll close c, and returns the function that closes it
// before. When closeAll has been called already, c is closed at once.
func (s *server) track(c io.Closer) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		c.Close()
		return func() {}
	}
	s.conns[c] = true
	return func() {
		c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// serve handles the one request of a connection.
func (s *server) serve(ctx context.Context, client net.Conn) {
	// One deadline for the whole head: a client that sends a byte now and
	// then gains no time by it.
	client.SetReadDeadline(time.Now().Add(s.HeadTimeout))
	r := bufio.NewReaderSize(client, 4<<10)
	q, err := readRequest(r)
	if err == nil {
		err = s.permit(q)
	}
	if err != nil {
		s.refuse(client, q, err)
		return
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	upstream, err := s.Dial(dctx)
	cancel()
	if err != nil {
		s.Log.Warn("proxy: the Podkey server does not answer", "error", err)
		s.refuse(client, q, &refusal{status: 502, reason: "the Podkey server does not answer"})
		return
	}
	defer s.track(upstream)()

	client.SetWriteDeadline(time.Now().Add(answerTimeout))
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	s.Log.Debug("proxy: tunnel", "host", q.host, "port", q.port)
	// r, not client: it may hold the first bytes of TLS already.
	newTunnel(client, upstream, s.IdleTimeout).run(r)
}

// permit decides on a well-formed request.
func (s *server) permit(q *request) error {
	switch {
	case q.method != "CONNECT":
		return &refusal{status: 403, reason: "only CONNECT is served", detail: "plain HTTP is unreachable through this proxy"}
	case !s.Allow(q.host, q.port):
		return &refusal{status: 403,
			reason: fmt.Sprintf("%s:%d is not Podkey", q.host, q.port),
			detail: "other hosts are unreachable through this proxy"}
	}
	return nil
}

func (s *server) refuse(client net.Conn, q *request, err error) {
	f, ok := errors.AsType[*refusal](err)
	if !ok {
		// The client went away, or was too slow for us to owe it an answer.
		s.Log.Debug("proxy: no request", "error", err)
		return
	}
	attrs := []any{"status", f.status, "reason", f.reason}
	if q != nil && q.host != "" {
		attrs = append(attrs, "host", q.host, "port", q.port)
	}
	s.Log.Info("proxy: refused", attrs...)
	s.answer(client, f)

	if w, ok := client.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		client.SetReadDeadline(time.Now().Add(lingerTime))
		io.CopyN(io.Discard, client, lingerBytes)
	}
}

// answer writes a refusal. The reason stands in the status line too: that is
// the only part of a proxy's answer that Go's and Python's clients show.
//
// The body of a 403 has the word "unreachable", because the Azure SDKs probe
// the metadata endpoint of Azure's virtual machines and take any answer for
// that endpoint's, unless it is a 403 with this word in it (Docker Desktop's
// proxy answers so). A client that sends its plain HTTP through us, as the
// one for JavaScript does, thus goes on to its next credential.
func (s *server) answer(client net.Conn, f *refusal) {
	body := "Podkey's proxy: " + f.reason
	if f.detail != "" {
		body += "; " + f.detail
	}
	body += "\n"
	if f.noBody {
		body = ""
	}
	client.SetWriteDeadline(time.Now().Add(answerTimeout))
	fmt.Fprintf(client, "HTTP/1.1 %d %s: %s\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\n"+
		"X-Content-Type-Options: nosniff\r\n"+
		"Content-Length: %d\r\n"+
		"Connection: close\r\n\r\n%s", f.status, statusText(f.status), f.reason, len(body), body)
}
