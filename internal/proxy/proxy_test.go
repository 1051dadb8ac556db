package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/pki"
	"github.com/podkey/podkey/internal/proxy"
)

// patience bounds every wait for something that happens at once.
const patience = 10 * time.Second

// azureHosts is an Allow for a few of Azure's names.
func azureHosts(host string, port int) bool {
	return port == 443 && (host == "login.microsoftonline.com" || strings.HasSuffix(host, ".vault.azure.net"))
}

// rig is a running proxy in front of a server.
type rig struct {
	addr  string
	dials atomic.Int64
	log   syncBuffer
	stop  context.CancelFunc
	done  chan error // Serve's result
}

// start runs p in front of the server at upstream.
func start(t testing.TB, upstream string, p proxy.Proxy) *rig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{addr: ln.Addr().String(), done: make(chan error, 1)}
	if p.Allow == nil {
		p.Allow = azureHosts
	}
	if p.Dial == nil {
		p.Dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", upstream)
		}
	}
	dial := p.Dial
	p.Dial = func(ctx context.Context) (net.Conn, error) {
		r.dials.Add(1)
		return dial(ctx)
	}
	p.Log = slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.done <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := r.wait(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

func (r *rig) wait() error {
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(patience):
		return errors.New("it did not return")
	}
}

// dial opens a raw connection to the proxy.
func (r *rig) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// send writes raw bytes and returns all that comes back until the proxy
// closes the connection.
func (r *rig) send(t testing.TB, raw string) string {
	t.Helper()
	c := r.dial(t)
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%q: after %q: %v", raw[:min(len(raw), 80)], b, err)
	}
	return string(b)
}

// tunnel opens a tunnel and returns the connection after the 200.
func (r *rig) tunnel(t testing.TB) *net.TCPConn {
	t.Helper()
	c := r.dial(t)
	fmt.Fprint(c, "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\nHost: kv1.vault.azure.net:443\r\n\r\n")
	expect(t, c, "HTTP/1.1 200 Connection established\r\n\r\n")
	return c
}

func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("got %q and %v, want %q", got[:n], err, want)
	}
}

func expectEOF(t testing.TB, r io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Fatalf("got %q and %v, want the end", b, err)
	}
}

// serveTCP runs a server that handles each connection with f, then closes it.
func serveTCP(t testing.TB, f func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			}()
		}
	}()
	return ln.Addr().String()
}

func echo(c *net.TCPConn) { io.Copy(c, c) }

// serveTLS runs an HTTPS server for the names and returns its address and a
// pool that trusts it.
func serveTLS(t testing.TB, h http.Handler, names ...string) (string, *x509.CertPool) {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	src := pki.NewSource(ca, pki.Leaf{DNSNames: names}, nil)
	srv := &http.Server{Handler: h, TLSConfig: &tls.Config{GetCertificate: src.GetCertificate}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go srv.ServeTLS(ln, "", "")
	t.Cleanup(func() { srv.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	return ln.Addr().String(), roots
}

func (r *rig) client(t testing.TB, roots *x509.CertPool) *http.Client {
	tr := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr}),
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func TestAzureNamesReachPodkey(t *testing.T) {
	addr, roots := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.URL.Path)
		io.Copy(w, r.Body)
	}), "login.microsoftonline.com", "*.vault.azure.net")
	r := start(t, addr, proxy.Proxy{})
	c := r.client(t, roots)

	for _, host := range []string{"login.microsoftonline.com", "kv1.vault.azure.net", "kv2.vault.azure.net"} {
		resp, err := c.Post("https://"+host+"/a", "text/plain", strings.NewReader(" body"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := "POST " + host + " /a body"; err != nil || string(b) != want {
			t.Errorf("got %q and %v, want %q", b, err, want)
		}
	}

	dials := r.dials.Load()
	for _, u := range []string{"https://www.example.com/", "https://management.azure.com.example.com/", "https://kv1.vault.azure.net:8443/", "https://127.0.0.1/", "https://[::1]/"} {
		_, err := c.Get(u)
		if err == nil || !strings.Contains(err.Error(), "is not Podkey") {
			t.Errorf("%s: error %v does not say why", u, err)
		}
	}
	if n := r.dials.Load(); n != dials {
		t.Errorf("refused requests dialled %d times", n-dials)
	}
}

func TestPlainHTTPIsRefused(t *testing.T) {
	r := start(t, serveTCP(t, echo), proxy.Proxy{})
	c := r.client(t, nil)
	// What the SDK for JavaScript does with its metadata probe.
	resp, err := c.Get("http://169.254.169.254/metadata/identity/oauth2/token")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 403 || !strings.Contains(string(b), "unreachable") {
		t.Errorf("%s: %q", resp.Status, b)
	}
	head, err := c.Head("http://kv1.vault.azure.net/")
	if err != nil {
		t.Fatal(err)
	}
	head.Body.Close()
	if head.StatusCode != 403 {
		t.Errorf("HEAD: %s", head.Status)
	}
	if n := r.dials.Load(); n != 0 {
		t.Errorf("dialled %d times", n)
	}
}

// A server that does not answer is not the client's fault.
func TestServerDown(t *testing.T) {
	r := start(t, "", proxy.Proxy{Dial: func(context.Context) (net.Conn, error) {
		return nil, errors.New("secret detail")
	}})
	got := r.send(t, "CONNECT login.microsoftonline.com:443 HTTP/1.1\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 502 Bad Gateway: the Podkey server does not answer\r\n") || strings.Contains(got, "secret") {
		t.Errorf("%q", got)
	}
}

func TestServesOnlyLoopback(t *testing.T) {
	p := proxy.Proxy{Allow: azureHosts, Dial: func(context.Context) (net.Conn, error) { return nil, io.EOF }}
	for _, network := range [][2]string{{"tcp4", "0.0.0.0:0"}, {"tcp", ":0"}, {"unix", t.TempDir() + "/s"}} {
		ln, err := net.Listen(network[0], network[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Serve(t.Context(), ln); !errors.Is(err, proxy.ErrNotLoopback) {
			t.Errorf("%v: %v", network, err)
		}
		if c, err := ln.Accept(); err == nil {
			c.Close()
			t.Errorf("%v: the listener is still open", network)
		}
	}
}

func TestListenerFailure(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	p := proxy.Proxy{Allow: azureHosts, Dial: func(context.Context) (net.Conn, error) { return nil, io.EOF }}
	if err := p.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// A client may end its half and still wait for the answer.
func TestHalfClose(t *testing.T) {
	all := serveTCP(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // to the end of the client's half
		fmt.Fprintf(c, "%d bytes", len(b))
	})
	c := start(t, all, proxy.Proxy{}).tunnel(t)
	c.Write(bytes.Repeat([]byte("x"), 100_000))
	c.CloseWrite()
	expect(t, c, "100000 bytes")
	expectEOF(t, c)

	got := make(chan string, 1)
	first := serveTCP(t, func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	c = start(t, first, proxy.Proxy{}).tunnel(t)
	expect(t, c, "bye")
	expectEOF(t, c)
	io.WriteString(c, "still here")
	c.Close()
	if s := <-got; s != "still here" {
		t.Errorf("the server got %q after it had ended its half", s)
	}
}

func TestResetEndsTunnel(t *testing.T) {
	reset := serveTCP(t, func(c *net.TCPConn) {
		expect(t, c, "x")
		c.SetLinger(0) // so that the close is a reset
	})
	c := start(t, reset, proxy.Proxy{}).tunnel(t)
	io.WriteString(c, "x")
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client's side stays open: %v", err)
	}
}

func TestLargeTransfer(t *testing.T) {
	const size = 8 << 20
	c := start(t, serveTCP(t, echo), proxy.Proxy{}).tunnel(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), size, err)
	}
}

func TestIdleTunnel(t *testing.T) {
	const idle = 60 * time.Millisecond
	// One byte now and then keeps a tunnel, though the other direction is
	// silent throughout.
	drip := serveTCP(t, func(c *net.TCPConn) {
		tick := time.NewTicker(idle / 4)
		defer tick.Stop()
		for range 12 {
			<-tick.C
			io.WriteString(c, ".")
		}
		io.Copy(io.Discard, c)
	})
	r := start(t, drip, proxy.Proxy{IdleTimeout: idle})
	c := r.tunnel(t)
	expect(t, c, strings.Repeat(".", 12))
	expectEOF(t, c) // and then idle ends it
}

// Whatever the connections are busy with, all end with the context, and no
// goroutine is left.
func TestContextEndsAll(t *testing.T) {
	upstreamGone := make(chan struct{}, 100)
	silent := serveTCP(t, func(c *net.TCPConn) {
		io.Copy(io.Discard, c)
		upstreamGone <- struct{}{}
	})
	var slowDials atomic.Bool
	r := start(t, silent, proxy.Proxy{Dial: func(ctx context.Context) (net.Conn, error) {
		if slowDials.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return new(net.Dialer).DialContext(ctx, "tcp", silent)
	}})

	var conns []*net.TCPConn
	for range 5 {
		conns = append(conns, r.tunnel(t))
		half := r.tunnel(t)
		half.CloseWrite()
		conns = append(conns, half)
		noHead := r.dial(t)
		conns = append(conns, noHead)
		partHead := r.dial(t)
		io.WriteString(partHead, "CONNECT kv1.vault")
		conns = append(conns, partHead)
	}
	slowDials.Store(true)
	before := r.dials.Load()
	dialling := r.dial(t)
	io.WriteString(dialling, "CONNECT kv1.vault.azure.net:443 HTTP/1.1\r\n\r\n")
	conns = append(conns, dialling)
	for r.dials.Load() == before {
		runtime.Gosched()
	}

	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for _, f := range []string{"proxy.(*server)", "proxy.(*tunnel)", "proxy.(*Proxy)"} {
		if bytes.Contains(buf, []byte(f)) {
			t.Errorf("a goroutine is left in %s:\n%s", f, buf)
		}
	}
	for _, c := range conns {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection is still open")
		}
	}
	for range 10 {
		<-upstreamGone
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// answers splits what a proxy sent into its responses.
func answers(t testing.TB, raw string) []*http.Response {
	t.Helper()
	var out []*http.Response
	for r := bufio.NewReader(strings.NewReader(raw)); ; {
		if _, err := r.Peek(1); err != nil {
			return out
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		resp.Body = io.NopCloser(bytes.NewReader(b))
		out = append(out, resp)
	}
}
