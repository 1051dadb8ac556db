package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/flowcontrol"
)

const (
	eventQueue    = 256 // that wait, of one namespace
	eventSeries   = 512 // different events that are remembered, to be counted up
	eventEvery    = 30 * time.Second
	eventIdle     = 30 * time.Minute // after which a repeated event starts anew; the API server keeps them for an hour
	eventsPerSec  = 1                // new ones, of one namespace
	eventsBurst   = 25
	eventsTimes   = 4    // as many of all namespaces together, and as many wait
	maxEventText  = 1000 // the API server refuses messages of more than 1024 bytes
	maxEventNames = 200  // leaves room for the suffix in the event's own name (253)
)

// recorder writes events, away from the admissions: they only put one into a
// queue of fixed length, or drop it. Events of the same content are one
// object whose count is brought up to date now and then, and there is a limit
// on new ones: 200 pods that fail alike cost two writes, and somebody who
// makes mistakes up does not fill etcd. Each namespace has a share: strangers,
// who can have events written by asking for reviews of their own, silence
// others only by naming several namespaces without pause.
type recorder struct {
	client    dynamic.Interface
	log       *slog.Logger
	now       func() time.Time
	component string
	instance  string
	metrics   *metrics
	queue     chan event
	limit     flowcontrol.RateLimiter // of new events
	again     flowcontrol.RateLimiter // of those that have expired

	mu      sync.Mutex
	waiting map[string]int // in the queue, by namespace

	// Of run alone.
	series            map[event]*series
	limits            map[string]*share // by namespace
	failing, refusing bool              // a failure, a refusal of the API server has been reported
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
		queue: make(chan event, eventQueue*eventsTimes), waiting: map[string]int{},
		limit:  flowcontrol.NewTokenBucketRateLimiter(eventsPerSec*eventsTimes, eventsBurst*eventsTimes),
		again:  flowcontrol.NewTokenBucketRateLimiter(eventsPerSec, eventsBurst),
		series: map[event]*series{}, limits: map[string]*share{},
	}
}

// record queues a warning about an object. It never waits.
func (r *recorder) record(on Object, reason, message string) {
	if len(message) > maxEventText {
		message = truncate(message, maxEventText)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[on.Namespace] < eventQueue {
		select {
		case r.queue <- event{on, reason, message}:
			r.waiting[on.Namespace]++
			return
		default:
		}
	}
	r.metrics.events.WithLabelValues("dropped").Inc()
}

// taken notes that an event has left the queue.
func (r *recorder) taken(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[e.on.Namespace]--; r.waiting[e.on.Namespace] <= 0 {
		delete(r.waiting, e.on.Namespace)
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
	r.taken(e)
	now := r.now()
	if s := r.series[e]; s != nil {
		s.count++
		s.lastSeen = now
		r.metrics.events.WithLabelValues("aggregated").Inc()
		return
	}
	if !r.may(e.on.Namespace) {
		r.metrics.events.WithLabelValues("dropped").Inc()
		return
	}
	if len(r.series) >= eventSeries {
		r.forgetOldest()
	}
	r.create(ctx, e, &series{count: 1, lastSeen: now})
}

// share is what one namespace may have written.
type share struct {
	limit flowcontrol.RateLimiter
	used  time.Time
}

// may takes from the limits of new events, a namespace's first: who has had
// his share takes nothing from the others'.
func (r *recorder) may(namespace string) bool {
	s := r.limits[namespace]
	if s == nil {
		s = &share{limit: flowcontrol.NewTokenBucketRateLimiter(eventsPerSec, eventsBurst)}
		r.limits[namespace] = s
	}
	s.used = r.now()
	return s.limit.TryAccept() && r.limit.TryAccept()
}

// forgetOldest makes room. An event that happens again is a new one then.
func (r *recorder) forgetOldest() {
	var oldest event
	at := time.Time{}
	for e, s := range r.series {
		if at.IsZero() || s.lastSeen.Before(at) {
			oldest, at = e, s.lastSeen
		}
	}
	delete(r.series, oldest)
}

// flush brings the counts in the cluster up to date and forgets what has not
// happened for a while, written or not: its namespace may be gone.
func (r *recorder) flush(ctx context.Context) {
	now := r.now()
	for e, s := range r.series {
		switch {
		case now.Sub(s.lastSeen) > eventIdle:
			delete(r.series, e)
		case s.count > s.written:
			r.update(ctx, e, s)
		}
	}
	for ns, s := range r.limits {
		if now.Sub(s.used) > eventsBurst/eventsPerSec*time.Second {
			delete(r.limits, ns) // full again
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
	case apierrors.IsNotFound(err): // it has expired, or its namespace is gone
		delete(r.series, e) // unless it can be made again
		if r.again.TryAccept() {
			r.create(ctx, e, s)
		}
	case err != nil:
		r.failed(e, err)
	default:
		s.written = s.count
	}
}

// eventsRule is what the role of this webhook must have.
const eventsRule = `{apiGroups: [""], resources: [events], verbs: [create, patch]}`

// failed notes an event that was not written. The operator hears of it once,
// and once more if it is for want of a right: it will go on as long as nobody
// acts.
func (r *recorder) failed(e event, err error) {
	r.metrics.events.WithLabelValues("failed").Inc()
	level, refused := slog.LevelDebug, apierrors.IsForbidden(err)
	if !r.failing || refused && !r.refusing {
		level = slog.LevelWarn
	}
	r.failing, r.refusing = true, r.refusing || refused
	attrs := []any{"kind", e.on.Kind, "namespace", e.on.Namespace, "name", e.on.Name, "reason", e.reason, "error", err}
	if refused {
		attrs = append(attrs, "missingRule", eventsRule)
	}
	r.log.Log(context.Background(), level, "event not written, further ones like it are reported at debug level", attrs...)
}
