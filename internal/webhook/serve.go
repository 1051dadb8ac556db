package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"regexp"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/podkey/podkey/internal/text"
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
	mux.Handle("POST "+MutatePath, s.reviewer(MutatePath, maxMutating, Rules.Mutate))
	mux.Handle("POST "+AdvisePath, s.reviewer(AdvisePath, maxAdvising, Rules.Advise))
	// No HTTP/2: API servers do not use it for webhooks, and with one request
	// to a connection, a bound on connections is one on requests.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return s.intake.watch(&http.Server{
		Handler:   mux,
		Protocols: &protocols,
		TLSConfig: &tls.Config{MinVersion: minTLS, GetCertificate: s.keeper.getCertificate},
		// The API server waits 10 s for an answer unless told otherwise, and
		// 30 s at most. The body has a shorter time of its own.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		// Longer than the API server keeps an idle connection (90 s), so that
		// it is never we who close one that it is about to use.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	})
}

// reviewer reads a review, has it answered, and writes its one log line. There
// are so many at once; the webhook that only warns cannot take room from the
// other, without which no pod starts.
func (s *Server) reviewer(path string, most int64, answer func(Rules, context.Context, []byte, LookupFunc, []byte) ([]byte, Outcome)) http.Handler {
	var slots atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s.metrics.inFlight.Inc()
		defer s.metrics.inFlight.Dec()

		body, o, err := s.review(w, r, func(rules Rules, body []byte) ([]byte, Outcome, error) {
			defer slots.Add(-1)
			if slots.Add(1) > most {
				return nil, Outcome{}, &refusal{http.StatusServiceUnavailable, "too many reviews at once"}
			}
			out, o := answer(rules, r.Context(), body, s.accounts.lookup, s.answers.get())
			return out, o, nil
		})
		took := time.Since(start)
		release := s.intake.answered(r.Context(), w, int64(cap(body)))
		defer release()
		if s.draining.Load() {
			// The caller must not come back on this connection: it would
			// find it closed one day, at the end of the drain, with its
			// review sent, and could not tell whether it may repeat it.
			w.Header().Set("Connection", "close")
		}
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
				// Under HTTP/2 it may still be read from: not kept.
				err = fmt.Errorf("write the answer: %w", werr)
			} else {
				s.answers.put(body)
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

func (s *Server) review(w http.ResponseWriter, r *http.Request, answer func(Rules, []byte) ([]byte, Outcome, error)) (out []byte, o Outcome, err error) {
	rules := s.rules.Load()
	if rules == nil {
		return nil, o, &refusal{http.StatusServiceUnavailable, "not ready, the API server has not told its version yet"}
	}
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		return nil, o, &refusal{http.StatusUnsupportedMediaType, "the content type must be application/json"}
	}
	body, release, err := s.intake.read(w, r, s.config.MaxReview)
	if err != nil {
		return nil, o, err
	}
	defer release()
	s.intake.arrived(r.Context())
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if out, o, err = answer(*rules, body); err == nil && out == nil {
		return nil, o, &refusal{http.StatusBadRequest, "the body is not an AdmissionReview"}
	}
	return out, o, err
}

// logReview writes the wide line of a review: at debug level when all went
// well, at info when the user will see a refusal or a warning, at error when
// it is our failure. Neither object nor patch is in it, and
// what is the caller's own has bounds.
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
		slog.String("uid", text.Clip(o.UID, maxLogged)),
		slog.String("kind", text.Clip(o.Kind, maxLogged)),
		slog.String("namespace", text.Clip(o.Namespace, maxLogged)),
		slog.String("name", text.Clip(o.Name, maxLogged)),
		slog.String("serviceAccount", text.Clip(o.Account, maxLogged)),
		slog.Int("warnings", o.Warnings),
		slog.Bool("dryRun", o.DryRun),
		slog.Duration("took", took),
	}
	if o.Reason != "" {
		attrs = append(attrs, slog.String("reason", o.Reason), slog.String("message", text.Clip(o.Message, maxEventText)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	s.log.LogAttrs(ctx, level, "review", attrs...)
}

// recordOutcome queues the event on the service account, where the mistake
// usually is. Without one, the pod's controller is told: the pod itself does
// not exist when it is refused.
//
// Reviews are nobody's word: of the controller, nothing is known but what the
// review says. It gets an event only if there can be such an object, in a
// namespace that there is, and with a text that is ours alone; the full one is
// in the answer, which the controller reports itself.
func (s *Server) recordOutcome(o Outcome) {
	if a := s.accounts.cached(o.Namespace, o.Account); a != nil {
		s.recorder.record(Object{APIVersion: "v1", Kind: "ServiceAccount", Namespace: a.Namespace, Name: a.Name, UID: a.UID}, o.Reason, o.Message)
		return
	}
	if on := o.Owner; on != nil && controllers[on.APIVersion+" "+on.Kind] && possible(on.Namespace, on.Name) && uid.MatchString(on.UID) &&
		s.accounts.hasNamespace(on.Namespace) && possibleName(o.Account) {
		s.recorder.record(*on, o.Reason, "Something is wrong with the service account of its pods, "+o.Account+
			": see that it exists, is what serviceAccountName says, and has the annotation of its identity.")
	}
}

// controllers are what makes pods in every cluster. Others report for
// themselves that a pod was refused.
var controllers = map[string]bool{
	"apps/v1 ReplicaSet": true, "apps/v1 StatefulSet": true, "apps/v1 DaemonSet": true, "batch/v1 Job": true, "v1 ReplicationController": true,
}

var uid = regexp.MustCompile(`^[-0-9A-Za-z]{1,64}$`)
