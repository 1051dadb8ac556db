package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"

	"github.com/podkey/podkey/internal/server"
)

// allocations counts what one request allocates in the server, by calling the
// handler without a network in this process, on a copy of nothing: a server
// of its own with the same declaration.
func (b *bench) allocations(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	s, err := server.New(ctx, server.Config{Data: filepath.Join(filepath.Dir(b.dir), "inprocess"), Listen: "127.0.0.1:0"},
		server.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		cancel()
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		return err
	}
	in := &bench{o: b.o, dir: filepath.Join(filepath.Dir(b.dir), "inprocess")}
	if err := in.open(ctx); err != nil {
		return err
	}
	fmt.Println("\nallocations per request in the handler, without the network:")
	for _, m := range []struct {
		name string
		next func() (*http.Request, error)
	}{
		{"secret GET", func() (*http.Request, error) { return in.getRequest(in.vault, "warm") }},
		{"secret SET", func() (*http.Request, error) { return in.setRequest(in.vault, "alloc") }},
		{"token exchange", func() (*http.Request, error) { return in.tokenRequest(in.login) }},
	} {
		const n = 500
		reqs := make([]*http.Request, n)
		for i := range reqs {
			r, err := m.next()
			if err != nil {
				return err
			}
			r.RemoteAddr, r.Host = "127.0.0.1:1", r.URL.Host
			if r.Body == nil {
				r.Body = http.NoBody
			}
			reqs[i] = r
		}
		w := &discard{header: http.Header{}}
		warm, err := m.next()
		if err != nil {
			return err
		}
		warm.RemoteAddr, warm.Host = "127.0.0.1:1", warm.URL.Host
		if warm.Body == nil {
			warm.Body = http.NoBody
		}
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, warm)
		if rec.Code != 200 {
			return fmt.Errorf("%s: HTTP %d: %s", m.name, rec.Code, rec.Body)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, r := range reqs {
			clear(w.header)
			s.Handler().ServeHTTP(w, r)
		}
		runtime.ReadMemStats(&after)
		fmt.Printf("  %-16s %5d allocations, %6d bytes\n", m.name, (after.Mallocs-before.Mallocs)/n, (after.TotalAlloc-before.TotalAlloc)/n)
	}
	return nil
}

// discard is a response nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (d *discard) WriteHeader(int)             {}
