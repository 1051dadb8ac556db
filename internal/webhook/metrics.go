package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the counters of one server, in a registry of their own: the
// default registry has those of every library that is linked in.
type metrics struct {
	registry *prometheus.Registry

	mutation *prometheus.HistogramVec // upstream's, by namespace
	reviews  *prometheus.CounterVec   // path, result
	inFlight prometheus.Gauge

	lookups       *prometheus.CounterVec // result
	events        *prometheus.CounterVec // result
	registrations prometheus.Counter
	renewals      *prometheus.CounterVec // what
	failures      prometheus.Counter
}

// otherNamespace is the label of reviews for a namespace without any service
// account that we know. Anybody who reaches the port can make namespaces up.
const otherNamespace = "other"

func newMetrics(reg *prometheus.Registry) *metrics {
	m := &metrics{
		registry: reg,
		mutation: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			// Name, labels and buckets as dashboards for the upstream
			// webhook expect them.
			Name:        "azwi_mutation_request",
			Help:        "Distribution of how long it took for the azure-workload-identity mutation request, in seconds.",
			ConstLabels: prometheus.Labels{"service_name": "webhook"},
			Buckets: []float64{
				.001, .002, .003, .004, .005, .006, .007, .008, .009,
				.01, .02, .03, .04, .05, .06, .07, .08, .09,
				.1, .2, .3, .4, .5, .6, .7, .8, .9,
				1, 1.5, 2, 2.5, 3,
			},
		}, []string{"namespace"}),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podkey_webhook_reviews_total", Help: "Admission reviews by path and result.",
		}, []string{"path", "result"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "podkey_webhook_reviews_in_flight", Help: "Admission reviews being answered.",
		}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podkey_webhook_account_lookups_total",
			Help: "Service account look-ups: found in the cache, found by asking the API server, missing, or failed.",
		}, []string{"result"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podkey_webhook_events_total", Help: "Events: written, aggregated into one that was written, dropped, or failed.",
		}, []string{"result"}),
		registrations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "podkey_webhook_ca_bundle_writes_total", Help: "Writes of the CA bundle into a webhook configuration.",
		}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podkey_webhook_certificates_issued_total", Help: "Certificates issued by this replica: ca or serving.",
		}, []string{"kind"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "podkey_webhook_certificate_failures_total", Help: "Failed attempts to keep Secret and CA bundle in order.",
		}),
	}
	reg.MustRegister(m.mutation, m.reviews, m.inFlight, m.lookups, m.events, m.registrations, m.renewals, m.failures,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// expiry shows when the certificates end, so that an alert does not depend on
// our own idea of when to renew.
func (m *metrics) expiry(k *keeper) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "podkey_webhook_certificate_not_after_timestamp_seconds",
		Help: "End of the serving certificate, as Unix time; 0 without one.",
	}, func() float64 {
		cert, err := k.getCertificate(nil)
		if err != nil {
			return 0
		}
		return float64(cert.Leaf.NotAfter.Unix())
	}))
}

func (m *metrics) reviewed(path string, o Outcome, took time.Duration, known bool) {
	m.reviews.WithLabelValues(path, o.Result).Inc()
	if path != MutatePath {
		return
	}
	ns := o.Namespace
	if !known {
		ns = otherNamespace
	}
	m.mutation.WithLabelValues(ns).Observe(took.Seconds())
}

// forget drops the series of a namespace that is gone.
func (m *metrics) forget(namespace string) { m.mutation.DeleteLabelValues(namespace) }
