package server

import (
	"context"
	"net/http"

	"github.com/podkey/podkey/internal/server/arm"
)

// registerKeyAdmin adds the operations on the server's keys: those
// that seal the store, and those that sign tokens.
func (s *Server) registerKeyAdmin(route func(name, method string, collection bool, action string, h adminHandler)) {
	route("keys", http.MethodGet, true, "read", s.keyStatus)
	route("rotateDataKey", http.MethodPost, true, "action", func(ctx context.Context, r *http.Request, q *arm.Request) (any, error) {
		if err := s.store.RotateDataKey(ctx); err != nil {
			return nil, err
		}
		return s.keyStatus(ctx, r, q)
	})
	route("rotateKek", http.MethodPost, true, "action", func(ctx context.Context, r *http.Request, q *arm.Request) (any, error) {
		if err := s.store.RotateKEK(ctx); err != nil {
			return nil, err
		}
		return s.keyStatus(ctx, r, q)
	})
	route("replaceSigningKeys", http.MethodPost, true, "action", func(ctx context.Context, r *http.Request, q *arm.Request) (any, error) {
		if err := s.keys.Replace(ctx); err != nil {
			return nil, err
		}
		return s.keyStatus(ctx, r, q)
	})
}

func (s *Server) keyStatus(ctx context.Context, _ *http.Request, _ *arm.Request) (any, error) {
	return s.store.KeyStatus(ctx)
}
