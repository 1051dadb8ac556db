package server

import (
	"github.com/podkey/podkey/internal/server/aks"
)

// newClusters makes the registered clusters. Entra's issuers and our own are
// not for them: those tokens are judged by keys of their own.
func (s *Server) newClusters() *aks.Clusters {
	return aks.New(s.store, aks.Options{
		RBAC: s.rbac, Home: s.homeTenant, Now: s.now, AllowLoopback: s.config.Issuer.AllowLoopback,
		Reserved: func(host string) bool {
			f, _, _ := classify(s.hosts.domain, host)
			return f != noFace && f != originFace || host == s.hosts.domain
		},
	})
}
