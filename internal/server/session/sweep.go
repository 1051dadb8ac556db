package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// sweepEvery is how often records that have expired are removed. They are
// refused from the moment that they expire; this is only about room.
const sweepEvery = 5 * time.Minute

// Run removes what has expired until ctx ends. Several servers may do so at
// once. What fails is tried again the next time.
func (s *Sessions) Run(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("expired sign-ins could not be removed", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep removes what has expired by now.
func (s *Sessions) Sweep(ctx context.Context) error {
	return errors.Join(
		sweep(ctx, s, s.families, (*family).expires),
		sweep(ctx, s, s.codes, (*codeRecord).expires),
		sweep(ctx, s, s.devices, (*deviceRecord).expires),
		sweep(ctx, s, s.userCode, (*userCodeRecord).expires),
		sweep(ctx, s, s.browsers, (*Browser).expires),
		sweep(ctx, s, s.flows, (*Flow).expires),
		sweep(ctx, s, s.userFamilies.lists, s.userFamilies.expires),
		sweep(ctx, s, s.userCodes.lists, s.userCodes.expires),
		sweep(ctx, s, s.userBrowsers.lists, s.userBrowsers.expires),
	)
}

// sweepPage is how many records are looked at, and at most removed, at a time.
const sweepPage = 50

func sweep[T any](ctx context.Context, s *Sessions, t *store.Table[T], expires func(*T) time.Time) error {
	for after := ""; ; {
		page, err := t.Scan(ctx, "", after, sweepPage)
		if err != nil {
			return fmt.Errorf("list expired records: %w", err)
		}
		var old []string
		now := s.now()
		for i := range page {
			if page[i].Err == nil && !now.Before(expires(&page[i].Value)) {
				old = append(old, page[i].Key)
			}
		}
		if err := remove(ctx, s, t, old, expires); err != nil {
			return err
		}
		if len(page) < sweepPage {
			return nil
		}
		after = page[len(page)-1].Key
	}
}

// remove deletes records that are still expired: a family may have been used
// since it was listed.
func remove[T any](ctx context.Context, s *Sessions, t *store.Table[T], keys []string, expires func(*T) time.Time) error {
	if len(keys) == 0 {
		return nil
	}
	return s.s.Update(ctx, func(tx *store.Tx) error {
		for _, key := range keys {
			v, ok, err := t.Get(tx, key)
			if err != nil {
				return err
			}
			if ok && !s.now().Before(expires(&v)) {
				t.Delete(tx, key)
			}
		}
		return nil
	})
}
