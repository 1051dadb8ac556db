// Package sidecar is the proxy beside an application that knows only managed
// identities: it answers like the metadata service of a virtual machine, or
// like App Service, with tokens that it gets by workload identity.
//
// It owns where the tokens come from ([Source]), what becomes of the token
// service's refusals, and the HTTP server of one pod ([Server]); the protocols
// are those of package imds. It guarantees that it listens on the loopback
// address only; that neither an answer nor a log line holds a service
// account's token, and no log line an access token; that what repeating could
// help is told as such, with the time to wait, and nothing else is; and that
// it starts, and says that it is ready, without the token service.
package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/text"
)

const (
	// maxHeader bounds a request's line and header: a token is asked for with
	// some hundred bytes.
	maxHeader = 16 << 10

	// stopGrace is how long requests may take to end when the pod stops.
	stopGrace = 5 * time.Second
)

// Server answers one pod.
type Server struct {
	Handler http.Handler // one of package imds
	Log     *slog.Logger // one line per request; nil is silent
}

// ReadyPath answers 200 as soon as the server listens.
const ReadyPath = "/readyz"

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == ReadyPath || r.URL.Path == ReadyPath+"/" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok")
		return
	}
	start := time.Now()
	sw := &statusWriter{ResponseWriter: w}
	s.Handler.ServeHTTP(sw, r)
	if s.Log == nil {
		return
	}
	// Of the query, only what cannot be a secret.
	q := r.URL.Query()
	s.Log.InfoContext(r.Context(), "request", "method", text.Clip(r.Method, 16), "path", text.Clip(r.URL.Path, 100), "status", sw.status,
		"milliseconds", time.Since(start).Milliseconds(), "resource", text.Clip(q.Get("resource"), 200), "client", text.Clip(q.Get("client_id"), 64))
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Listen listens on the port of the loopback address. It is IPv4 because the
// redirected metadata address is.
func Listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("listen for the pod: %w", err)
	}
	return ln, nil
}

// Serve serves until ctx ends, which is no error; requests then have some
// seconds to end. It closes the listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		ln.Close()
		return fmt.Errorf("the proxy serves only a loopback address, not %s", ln.Addr())
	}
	srv := &http.Server{
		Handler: s, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(s.log().Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("proxy: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		srv.Close() // what has not ended by now is cut off
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("proxy: %w", err)
	}
	return nil
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// MetadataService is where the node's own metadata service is.
const MetadataService = "http://169.254.169.254"

// hopHeader marks what was passed on. It comes back if the redirection does
// not spare the proxy, because it runs as another user than it should.
const hopHeader = "Podkey-Metadata-Hop"

// PassOn is a handler that passes requests on to a metadata service, for the
// Other of an imds.Handler.
func PassOn(to *url.URL, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	proxy := &httputil.ReverseProxy{
		// Rewrite, unlike Director, adds no X-Forwarded-For, which a metadata
		// service refuses.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Set(hopHeader, "1")
			r.Out.Header.Del("Upgrade")
		},
		Transport: &http.Transport{
			DialContext:           dialer.DialContext, // the address is on the node: never through a proxy
			ResponseHeaderTimeout: 10 * time.Second,
			IdleConnTimeout:       30 * time.Second,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			log.WarnContext(r.Context(), "the node's metadata service did not answer", "error", err)
			w.Header().Set("Retry-After", "2")
			writeError(w, http.StatusServiceUnavailable, "temporarily_unavailable", "The node's metadata service did not answer.")
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(hopHeader) != "" {
			log.ErrorContext(r.Context(), "the redirection of the metadata address leads the proxy to itself: it must run as the user that PROXY_UID names")
			writeError(w, http.StatusLoopDetected, "server_error", "The proxy is redirected to itself.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		proxy.ServeHTTP(w, r)
	})
}

func writeError(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description})
}

// Instance is what /metadata/instance can say of a pod without a metadata
// service: its name, namespace and node, from POD_NAME, POD_NAMESPACE and
// NODE_NAME. It is nil if none is set.
func Instance(getenv func(string) string) map[string]any {
	var tags []any
	var line []string
	for _, t := range []struct{ tag, variable string }{
		{"kubernetes.pod", "POD_NAME"}, {"kubernetes.namespace", "POD_NAMESPACE"}, {"kubernetes.node", "NODE_NAME"},
	} {
		if v := getenv(t.variable); v != "" {
			tags = append(tags, map[string]any{"name": t.tag, "value": v})
			line = append(line, t.tag+":"+v)
		}
	}
	if tags == nil {
		return nil
	}
	// The machine is the node, as for an application on AKS.
	name := getenv("NODE_NAME")
	if name == "" {
		name = getenv("POD_NAME")
	}
	return map[string]any{"compute": map[string]any{
		"name": name, "osType": "Linux", "osProfile": map[string]any{"computerName": name},
		"tags": strings.Join(line, ";"), "tagsList": tags,
	}}
}

// Probe asks a server whether it is ready, as often as tries says, with a
// pause in between. It is for a hook that may start before the server does,
// so a refused connection is a reason to ask again too.
func Probe(ctx context.Context, origin string, tries int, pause time.Duration) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var err error
	for i := range tries {
		if i > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err = probe(ctx, client, origin+ReadyPath); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the proxy is not ready after %d tries: %w", tries, err)
}

func probe(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	return nil
}
