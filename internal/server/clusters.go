package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/podkey/podkey/deploy/chart"
	"github.com/podkey/podkey/internal/install"
	"github.com/podkey/podkey/internal/server/aks"
	"github.com/podkey/podkey/internal/token"
)

// ClusterConfig is about what the server brings to registered clusters when
// workload identity is switched on in them.
type ClusterConfig struct {
	// Image is Podkey's own, as the clusters' nodes get it: REPOSITORY,
	// REPOSITORY:TAG or REPOSITORY@sha256:DIGEST. The chart's if empty.
	Image string `json:"image"`
	// Namespace is where it is installed; podkey-system if empty.
	Namespace string `json:"namespace"`
	// AzureNames makes pods meet the server under Azure's names instead of its
	// own. The DNS of the clusters must answer so: podkey corefile.
	AzureNames bool `json:"azureNames"`
	// Values is a values file for the chart, laid over what the server fills in:
	// tenant, authority, trust and image.
	Values string `json:"values"`
	// AllowPrivate and AllowLoopback let the server connect to API servers at
	// such addresses by everybody's kubeconfigs; by those that an operator
	// registered it does anyway. See docs/clusters.md.
	AllowPrivate  bool `json:"allowPrivate"`
	AllowLoopback bool `json:"allowLoopback"`
}

func (c ClusterConfig) namespace() string { return cmp.Or(c.Namespace, "podkey-system") }

// problems are what can be said without reading files.
func (c ClusterConfig) problems() (errs []error) {
	if c.Image != "" {
		if _, err := install.Image(c.Image); err != nil {
			errs = append(errs, fmt.Errorf("clusters.image: %w", err))
		}
	}
	if n := c.namespace(); len(n) > 63 || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || n[0] == '-' || n[len(n)-1] == '-' {
		errs = append(errs, fmt.Errorf("clusters.namespace: %q cannot be the name of a namespace", n))
	}
	return errs
}

// newClusters makes the registered clusters. Entra's issuers and our own are
// not for them: those tokens are judged by keys of their own.
func (s *Server) newClusters() (*aks.Clusters, error) {
	manifests, err := s.manifests()
	if err != nil {
		return nil, err
	}
	return aks.New(s.store, aks.Options{
		RBAC: s.rbac, Home: s.homeTenant, Now: s.now, Log: s.log, AllowLoopback: s.config.Issuer.AllowLoopback,
		Reserved: func(host string) bool {
			f, _, _ := classify(s.hosts.domain, host)
			return f != noFace && f != originFace || host == s.hosts.domain
		},
		Manifests: manifests, Namespace: s.config.Clusters.namespace(), Dial: s.dialCluster,
		Alone: len(s.config.Etcd.Endpoints) == 0,
	}), nil
}

// manifests returns what renders the manifests for a tenant's clusters. The
// operator's part of it is read and tried now, so that a mistake in it stops
// the start and not somebody's update of a cluster.
func (s *Server) manifests() (func(ctx context.Context, tenantID string) ([]chart.Object, error), error) {
	c := s.config.Clusters
	over := map[string]any{}
	if c.Values != "" {
		b, err := os.ReadFile(c.Values)
		if err != nil {
			return nil, fmt.Errorf("read clusters.values: %w", err)
		}
		if over, err = chart.ParseValues(b); err != nil {
			return nil, fmt.Errorf("read clusters.values %s: %w", c.Values, err)
		}
	}
	image := map[string]any{}
	if c.Image != "" {
		var err error
		if image, err = install.Image(c.Image); err != nil {
			return nil, fmt.Errorf("clusters.image: %w", err)
		}
	}
	render := func(tenantID, login string, ca []byte) ([]chart.Object, error) {
		values := install.Authority{TenantID: tenantID, Login: login, CA: ca}.Values()
		return chart.Render(chart.Release{Namespace: c.namespace(), Values: chart.Overlay(chart.Overlay(values, image), over)})
	}
	if _, err := render("00000000-0000-0000-0000-000000000000", "https://login.example", []byte("tried")); err != nil {
		return nil, fmt.Errorf("clusters.values: %w", err)
	}
	return func(ctx context.Context, tenantID string) ([]chart.Object, error) {
		ca, err := s.authority.ensure(ctx, ownCA)
		if err != nil {
			return nil, err
		}
		if !c.AzureNames {
			return render(tenantID, s.hosts.own.Login, ca.CertPEM())
		}
		azure, err := s.authority.ensure(ctx, azureCA)
		if err != nil {
			return nil, err
		}
		return render(tenantID, "", slices.Concat(ca.CertPEM(), azure.CertPEM()))
	}, nil
}

// dialCluster connects to an API server whose address somebody chose, under
// the rules for issuers' documents. Who is trusted by all reaches more anyway.
func (s *Server) dialCluster(trusted bool) func(ctx context.Context, network, address string) (net.Conn, error) {
	c := s.config.Clusters
	rules := &token.Foreign{AllowPrivate: trusted || c.AllowPrivate, AllowLoopback: trusted || c.AllowLoopback}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := rules.Dial(ctx, network, address)
		if err != nil {
			return nil, discreet(err)
		}
		return conn, nil
	}
}

// discreet words why an API server was not reached for who chose its name:
// they learn nothing of what the name means here, nor who resolves it.
func discreet(err error) error {
	if refused, ok := errors.AsType[*token.AddressError](err); ok {
		return fmt.Errorf("the server does not connect to its address (%s); an operator can register the kubeconfig, or allow it in the server's configuration (clusters.allowPrivate, clusters.allowLoopback)", refused.Why)
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("its name cannot be resolved (%s)", e.Err)
	}
	return err
}
