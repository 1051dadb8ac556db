package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/flowcontrol"
)

const (
	eventQueue    = 256
	eventSeries   = 512 // different events that are remembered, to be counted up
	eventEvery    = 30 * time.Second
	eventIdle     = 30 * time.Minute // after which a repeated event starts anew; the API server keeps them for an hour
	eventsPerSec  = 1
	eventsBurst   = 25
	maxEventText  = 1000 // the API server refuses messages of more than 1024 bytes
	maxEventNames = 200  // leaves room for the suffix in the event's own name (253)
)

// recorder writes events, away from the admissions: they only put one into a
// queue of fixed length, or drop it. Events of the same content are one
// object whose count is brought up to date now and then, and there is a limit
// on new ones: 200 pods that fail alike cost two writes, and somebody who
// makes mistakes up does not fill etcd.
type recorder struct {
	client    dynamic.Interface
	log       *slog.Logger
	now       func() time.Time
	component string
	instance  string
	metrics   *metrics
	queue     chan event
	limit     flowcontrol.RateLimiter

	series map[event]*series // of run alone
}

// event is what makes two events the same.
type event struct {
	on              Object
	reason, message string
}

// series is one object in the cluster.
type series struct {
	name           string
	count, written int // so often it happened, and so often the cluster knows of
	lastSeen       time.Time
}

func newRecorder(client dynamic.Interface, c Config, m *metrics) *recorder {
	return &recorder{
		client: client, log: c.Log, now: c.Now, component: c.Service, instance: c.Instance, metrics: m,
		queue: make(chan event, eventQueue), limit: flowcontrol.NewTokenBucketRateLimiter(eventsPerSec, eventsBurst),
		series: map[event]*series{},
	}
}

// record queues a warning about an object. It never waits.
func (r *recorder) record(on Object, reason, message string) {
	if len(message) > maxEventText {
		message = truncate(message, maxEventText)
	}
	select {
	case r.queue <- event{on, reason, message}:
	default:
		r.metrics.events.WithLabelValues("dropped").Inc()
	}
}

// truncate cuts at a rune's boundary.
func truncate(s string, n int) string {
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

func (r *recorder) run(ctx context.Context) {
	tick := time.NewTicker(eventEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.queue:
			r.handle(ctx, e)
		case <-tick.C:
			r.flush(ctx)
		}
	}
}

func (r *recorder) handle(ctx context.Context, e event) {
	now := r.now()
	if s := r.series[e]; s != nil {
		s.count++
		s.lastSeen = now
		r.metrics.events.WithLabelValues("aggregated").Inc()
		return
	}
	if len(r.series) >= eventSeries || !r.limit.TryAccept() {
		r.metrics.events.WithLabelValues("dropped").Inc()
		return
	}
	r.create(ctx, e, &series{count: 1, lastSeen: now})
}

// flush brings the counts in the cluster up to date and forgets what has not
// happened for a while.
func (r *recorder) flush(ctx context.Context) {
	for e, s := range r.series {
		switch {
		case s.count > s.written:
			r.update(ctx, e, s)
		case r.now().Sub(s.lastSeen) > eventIdle:
			delete(r.series, e)
		}
	}
}

func (r *recorder) create(ctx context.Context, e event, s *series) {
	now := r.now()
	on := e.on.Name
	if len(on) > maxEventNames {
		on = on[:maxEventNames]
	}
	s.name = fmt.Sprintf("%s.%x", on, now.UnixNano())
	stamp := s.lastSeen.UTC().Format(time.RFC3339)
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	_, err := r.client.Resource(eventsGVR).Namespace(e.on.Namespace).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"name": s.name, "namespace": e.on.Namespace},
		"involvedObject": map[string]any{
			"apiVersion": e.on.APIVersion, "kind": e.on.Kind, "namespace": e.on.Namespace, "name": e.on.Name, "uid": e.on.UID,
		},
		"type": "Warning", "reason": e.reason, "message": e.message,
		"source":         map[string]any{"component": r.component},
		"firstTimestamp": stamp, "lastTimestamp": stamp, "count": int64(s.count),
		"reportingComponent": r.component, "reportingInstance": r.instance,
	}}, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil {
		r.failed(e, err)
		return
	}
	s.written = s.count
	r.series[e] = s
	r.metrics.events.WithLabelValues("written").Inc()
}

func (r *recorder) update(ctx context.Context, e event, s *series) {
	patch := fmt.Sprintf(`{"count":%d,"lastTimestamp":%q}`, s.count, s.lastSeen.UTC().Format(time.RFC3339))
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	_, err := r.client.Resource(eventsGVR).Namespace(e.on.Namespace).
		Patch(ctx, s.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsNotFound(err): // it has expired
		r.create(ctx, e, s)
	case err != nil:
		r.failed(e, err)
	default:
		s.written = s.count
	}
}

func (r *recorder) failed(e event, err error) {
	r.metrics.events.WithLabelValues("failed").Inc()
	r.log.Debug("event not written", "kind", e.on.Kind, "namespace", e.on.Namespace, "name", e.on.Name, "reason", e.reason, "error", err)
}
