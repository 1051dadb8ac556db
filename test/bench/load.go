package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// errExhausted ends a measurement early: what it was to send is used up.
var errExhausted = errors.New("nothing left to send")

// call makes one request; it must not be shared between clients.
type call func(client int) (*http.Request, error)

// result is what one measurement found.
type result struct {
	rps      float64
	p50, p99 time.Duration
}

// newClient is a client with a connection of its own to addr, whatever the
// host name.
func newClient(addr string, roots *x509.CertPool) *http.Client {
	var d net.Dialer
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "tcp", addr)
			},
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost: 1,
			DisableCompression:  true,
		},
	}
}

// load lets n clients make calls for as long as d, and fails on the first
// answer that is not want.
func load(ctx context.Context, clients []*http.Client, d time.Duration, want int, next call) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var failure error
	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(d)
	for i, c := range clients {
		wg.Go(func() {
			took := make([]time.Duration, 0, 1<<14)
			defer func() {
				mu.Lock()
				all = append(all, took...)
				mu.Unlock()
			}()
			for {
				begin := time.Now()
				if begin.After(end) || ctx.Err() != nil {
					break
				}
				err := once(c, want, i, next)
				if errors.Is(err, errExhausted) {
					return
				}
				if err != nil {
					mu.Lock()
					failure = err
					mu.Unlock()
					cancel()
					return
				}
				took = append(took, time.Since(begin))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if failure != nil {
		return result{}, failure
	}
	return summarize(all, elapsed), ctx.Err()
}

func summarize(all []time.Duration, elapsed time.Duration) result {
	slices.Sort(all)
	r := result{rps: float64(len(all)) / elapsed.Seconds()}
	if len(all) > 0 {
		r.p50, r.p99 = all[len(all)/2], all[len(all)*99/100]
	}
	return r
}

func once(c *http.Client, want, client int, next call) error {
	req, err := next(client)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s %s: HTTP %d", req.Method, req.URL, resp.StatusCode)
	}
	return err
}

// pair measures ours and bare in turn, and returns the median of each. before
// runs before each measurement of ours; it may be nil.
func pair(ctx context.Context, o options, n, want int, ours, bare func(int) *http.Client, before func() error, next, nextBare call) (a, b result, err error) {
	mine, theirs := make([]*http.Client, n), make([]*http.Client, n)
	for i := range n {
		mine[i], theirs[i] = ours(i), bare(i)
	}
	var as, bs []result
	for range o.rounds {
		if before != nil {
			if err := before(); err != nil {
				return a, b, err
			}
		}
		if a, err = load(ctx, mine, o.duration, want, next); err != nil {
			return a, b, err
		}
		if b, err = load(ctx, theirs, o.duration, want, nextBare); err != nil {
			return a, b, err
		}
		as, bs = append(as, a), append(bs, b)
	}
	for _, c := range slices.Concat(mine, theirs) {
		c.CloseIdleConnections()
	}
	return median(as), median(bs), nil
}

func median(rs []result) result {
	slices.SortFunc(rs, func(a, b result) int { return int(a.rps - b.rps) })
	return rs[len(rs)/2]
}
