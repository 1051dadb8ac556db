package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

const (
	// The kubelet replaces a projected token at 80 % of its life too.
	refreshNum, refreshDen = 4, 5

	// firstRetry doubles up to lastRetry while a refresh fails.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second

	maxFetch = time.Minute

	// maxNap bounds each wait for the next refresh. Timers do not run while
	// a laptop sleeps, the wall clock does: after waking up, an old token
	// stays for no longer than this.
	maxNap = 15 * time.Second
)

// TokenFile keeps a federated token in a file fresh, as the kubelet does for a
// pod. Path and Fetch must be set. Write, then Run; not two Runs at a time.
type TokenFile struct {
	// Path is the file, mode 0600. Its directory is made, mode 0700, or
	// refused if others may enter it.
	Path string

	// Fetch obtains a token and the time at which it expires. Its context
	// ends after a minute.
	Fetch func(ctx context.Context) (token string, expires time.Time, err error)

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // told of failed refreshes, never of a token; nil is silent

	due time.Time // when the present token should be replaced
}

// Write fetches a token and writes it. Call it before the child starts, so
// that the file is there.
func (f *TokenFile) Write(ctx context.Context) error {
	fctx, cancel := context.WithTimeout(ctx, maxFetch)
	token, expires, err := f.Fetch(fctx)
	cancel()
	if err != nil {
		return fmt.Errorf("fetch federated token: %w", err)
	}
	// Clients send the whole content of the file as the token.
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return errors.New("fetch federated token: what was fetched is not a token")
	}
	now := f.now()
	life := expires.Sub(now)
	if life <= 0 {
		return fmt.Errorf("fetch federated token: it expired at %s, and it is %s",
			expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if err := privateDir(filepath.Dir(f.Path)); err != nil {
		return fmt.Errorf("federated token file: %w", err)
	}
	if err := pki.ReplaceFile(f.Path, []byte(token), 0o600); err != nil {
		return fmt.Errorf("federated token file: %w", err)
	}
	// In floating point no life is long enough to overflow.
	f.due = now.Add(time.Duration(float64(life) * refreshNum / refreshDen))
	return nil
}

// Run replaces the token at 80 % of each life until ctx ends, which is no
// error. A refresh that fails is repeated after 1 s, 2 s, 4 s and so on up to
// 30 s, for as long as it takes; the old token stays meanwhile, even expired:
// what the token service says about it tells more than a missing file would.
func (f *TokenFile) Run(ctx context.Context) error {
	retry := firstRetry
	for {
		if err := f.sleepUntil(ctx, f.due); err != nil {
			return nil
		}
		err := f.Write(ctx)
		switch {
		case err == nil:
			retry = firstRetry
		case ctx.Err() != nil:
			return nil
		default:
			f.log().Warn("the workload's token was not refreshed", "error", err, "retryIn", retry)
			f.due = f.now().Add(retry)
			retry = min(2*retry, lastRetry)
		}
	}
}

// sleepUntil returns when the clock has reached t, or ctx's error.
func (f *TokenFile) sleepUntil(ctx context.Context, t time.Time) error {
	for {
		// Round strips the monotonic reading, which stops during sleep.
		left := t.Round(0).Sub(f.now().Round(0))
		if left <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(min(left, maxNap))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (f *TokenFile) now() time.Time {
	if f.Now == nil {
		return time.Now()
	}
	return f.Now()
}

func (f *TokenFile) log() *slog.Logger {
	if f.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return f.Log
}
