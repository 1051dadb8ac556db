package token

import (
	"context"
	"crypto/rsa"
	"errors"
	"time"
)

const (
	keysFresh   = 30 * time.Minute // keys younger than this are not fetched again
	keysValid   = time.Hour        // keys younger than this are used without asking first
	keysStale   = 24 * time.Hour   // keys older than this are not used even if the issuer fails
	retryKid    = 5 * time.Second  // pause before an unknown kid causes another fetch
	retryFailed = 10 * time.Second // pause before an issuer that failed is tried again
	maxIssuers  = 1000             // whose keys are kept
	maxFetches  = 64               // under way at once

	// Of them, to one host: one that never answers must not keep the others
	// waiting. A cloud's hosts carry the issuers of thousands of clusters, so
	// it is not one each.
	maxHostFetches = 16
)

// issuerKeys are the fetched keys of one issuer. Foreign.mu guards it.
type issuerKeys struct {
	keys    map[string]*rsa.PublicKey
	fetched time.Time     // when keys came; zero if they never did
	tried   time.Time     // when the last fetch ended
	err     error         // what came of it; nil if it worked
	busy    chan struct{} // closed when the fetch under way ends; nil if there is none
	used    time.Time
}

// key returns the issuer's key named kid. Errors are *ForeignError, or those
// of Registered or ctx.
func (f *Foreign) key(ctx context.Context, issuer, kid string) (*rsa.PublicKey, error) {
	f.start()
	missing := &ForeignError{Kind: NoKey, Issuer: issuer, KeyID: kid}
	if f.Registered != nil {
		set, ok, err := f.Registered(ctx, issuer)
		if err != nil {
			return nil, err
		}
		if ok {
			if key := pick(set, kid); key != nil {
				return key, nil
			}
			return nil, missing
		}
	}
	if kid == "" {
		missing.Err = errors.New("the token names none")
		return nil, missing
	}
	for waited := false; ; waited = true {
		key, wait, err := f.lookUp(ctx, issuer, kid, waited)
		if wait == nil {
			if key == nil && err == nil {
				err = missing
			}
			return key, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lookUp looks for a key among the fetched ones and starts a fetch if one is
// due. If the answer depends on a fetch under way it returns a channel to
// wait for; who has waited once gets an answer.
func (f *Foreign) lookUp(ctx context.Context, issuer, kid string, waited bool) (*rsa.PublicKey, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.Now()
	e := f.entry(issuer, now)
	age := now.Sub(e.fetched)
	held := !e.fetched.IsZero() && age < keysStale
	pause := retryKid
	if e.err != nil {
		pause = retryFailed
	}
	// A clock that was set back must not keep us from asking.
	since := now.Sub(e.tried)
	due := !waited && (e.tried.IsZero() || since < 0 || since >= pause)

	if key := e.keys[kid]; key != nil && held {
		if age < keysFresh {
			return key, nil, nil
		}
		if due {
			f.refresh(ctx, issuer, e)
		}
		if age < keysValid || e.err != nil || e.busy == nil {
			return key, nil, nil
		}
		return nil, e.busy, nil
	}
	if due {
		f.refresh(ctx, issuer, e)
	}
	if e.busy != nil && !waited {
		return nil, e.busy, nil
	}
	return nil, nil, e.err
}

// entry returns what is kept of an issuer, making room for it if need be. mu
// is held.
func (f *Foreign) entry(issuer string, now time.Time) *issuerKeys {
	e := f.issuers[issuer]
	if e == nil {
		if len(f.issuers) >= maxIssuers {
			f.evict()
		}
		e = &issuerKeys{}
		f.issuers[issuer] = e
	}
	e.used = now
	return e
}

// evict forgets the issuer that was used longest ago. mu is held.
func (f *Foreign) evict() {
	var oldest string
	var since time.Time
	found := false
	for issuer, e := range f.issuers {
		if e.busy == nil && (!found || e.used.Before(since)) {
			oldest, since, found = issuer, e.used, true
		}
	}
	if found {
		delete(f.issuers, oldest)
	}
}

// refresh starts a fetch unless one is under way. It outlives whoever asked
// for it: others wait for it too. mu is held.
func (f *Foreign) refresh(ctx context.Context, issuer string, e *issuerKeys) {
	if e.busy != nil {
		return
	}
	done := make(chan struct{})
	e.busy = done
	ctx = context.WithoutCancel(ctx)
	go func() {
		keys, err := f.fetch(ctx, issuer)
		if err != nil {
			f.Log.Warn("keys of an issuer cannot be fetched", "error", err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		defer close(done)
		now := f.Now()
		e.busy, e.tried, e.err = nil, now, err
		if err == nil {
			e.keys, e.fetched = keys, now
		}
	}()
}
