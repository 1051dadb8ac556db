package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"time"
)

// The paths that the webhook configurations name.
const (
	MutatePath = "/mutate-v1-pod"
	AdvisePath = "/advise-v1-pod"
)

func (s *Server) admissionServer() *http.Server {
	minTLS := s.config.MinTLS
	if minTLS == 0 {
		minTLS = tls.VersionTLS13
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+MutatePath, s.reviewer(MutatePath, Rules.Mutate))
	mux.Handle("POST "+AdvisePath, s.reviewer(AdvisePath, Rules.Advise))
	return &http.Server{
		Handler:   mux,
		TLSConfig: &tls.Config{MinVersion: minTLS, GetCertificate: s.keeper.getCertificate},
		// The API server waits 10 s for an answer unless told otherwise, and
		// 30 s at most.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		// Longer than the API server keeps an idle connection (90 s), so that
		// it is never we who close one that it is about to use.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// reviewer reads a review, has it answered, and writes its one log line.
func (s *Server) reviewer(path string, answer func(Rules, context.Context, []byte, LookupFunc) ([]byte, Outcome)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s.metrics.inFlight.Inc()
		defer s.metrics.inFlight.Dec()

		body, o, err := s.review(w, r, answer)
		took := time.Since(start)
		status := http.StatusOK
		if err != nil {
			var refused *refusal
			if !errors.As(err, &refused) {
				refused = &refusal{http.StatusInternalServerError, "internal error"}
			}
			status = refused.status
			o.Result = "failed"
			// The API server puts this text into the user's error.
			http.Error(w, "podkey webhook: "+refused.text, status)
		} else {
			w.Header().Set("Content-Type", "application/json")
			if _, werr := w.Write(body); werr != nil {
				err = fmt.Errorf("write the answer: %w", werr)
			}
		}
		s.metrics.reviewed(path, o, took, s.accounts.hasNamespace(o.Namespace))
		s.logReview(r.Context(), path, status, o, took, err)
		if err == nil && !o.DryRun && o.Reason != "" {
			s.recordOutcome(o)
		}
	})
}

// refusal is a request that is not answered with a review.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

func (s *Server) review(w http.ResponseWriter, r *http.Request, answer func(Rules, context.Context, []byte, LookupFunc) ([]byte, Outcome)) (out []byte, o Outcome, err error) {
	rules := s.rules.Load()
	if rules == nil {
		return nil, o, &refusal{http.StatusServiceUnavailable, "not ready, the API server has not told its version yet"}
	}
	if s.metrics.slots.Add(1) > maxInFlight {
		s.metrics.slots.Add(-1)
		return nil, o, &refusal{http.StatusServiceUnavailable, "too many reviews at once"}
	}
	defer s.metrics.slots.Add(-1)
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		return nil, o, &refusal{http.StatusUnsupportedMediaType, "the content type must be application/json"}
	}
	// The announced length is a guess at the room needed, nothing more: a
	// caller who announces much and sends nothing takes little.
	buf := bytes.NewBuffer(make([]byte, 0, bytes.MinRead+int(min(max(r.ContentLength, 0), 64<<10))))
	if _, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, maxReview)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, o, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the review is larger than %d bytes", maxReview)}
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = &refusal{http.StatusBadRequest, "the review ends early"}
		}
		return nil, o, err
	}
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	out, o = answer(*rules, r.Context(), buf.Bytes(), s.accounts.lookup)
	if out == nil {
		return nil, o, &refusal{http.StatusBadRequest, "the body is not an AdmissionReview"}
	}
	return out, o, nil
}

// logReview writes the wide line of a review: at debug level when all went
// well, at info when the user will see a refusal or a warning, at error when
// it is our failure. Neither object nor patch is in it.
func (s *Server) logReview(ctx context.Context, path string, status int, o Outcome, took time.Duration, err error) {
	level := slog.LevelDebug
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil && status >= 500:
		level = slog.LevelError
	case err != nil || o.Reason != "" || o.Warnings > 0:
		level = slog.LevelInfo
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("path", path),
		slog.Int("status", status),
		slog.String("result", o.Result),
		slog.String("uid", o.UID),
		slog.String("kind", o.Kind),
		slog.String("namespace", o.Namespace),
		slog.String("name", o.Name),
		slog.String("serviceAccount", o.Account),
		slog.Int("warnings", o.Warnings),
		slog.Bool("dryRun", o.DryRun),
		slog.Duration("took", took),
	}
	if o.Reason != "" {
		attrs = append(attrs, slog.String("reason", o.Reason), slog.String("message", o.Message))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	s.log.LogAttrs(ctx, level, "review", attrs...)
}

// recordOutcome queues the event on the service account, where the mistake
// usually is. Without one, the pod's controller is told: the pod itself does
// not exist when it is refused.
func (s *Server) recordOutcome(o Outcome) {
	on := o.Owner
	if a := s.accounts.cached(o.Namespace, o.Account); a != nil {
		on = &Object{APIVersion: "v1", Kind: "ServiceAccount", Namespace: a.Namespace, Name: a.Name, UID: a.UID}
	}
	if on != nil {
		s.recorder.record(*on, o.Reason, o.Message)
	}
}
