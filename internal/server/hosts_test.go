package server

import (
	"testing"

	"github.com/podkey/podkey/internal/web"
)

func TestHostsChooseThePlane(t *testing.T) {
	own := web.OwnNames("podkey.test:8443")
	h := &hosts{domain: "podkey.test", own: own, azure: web.AzureNames(own)}
	for _, p := range []struct {
		at   **web.Plane
		name string
	}{{&h.login, "login"}, {&h.management, "management"}, {&h.graph, "graph"}, {&h.vault, "vault"}, {&h.issuer, "issuer"}, {&h.origin, "origin"}, {&h.unknown, "none"}} {
		*p.at = &web.Plane{Name: p.name}
	}
	for _, c := range []struct{ host, plane, vault, login string }{
		{"login.podkey.test:8443", "login", "", own.Login},
		{"login.podkey.test", "login", "", own.Login},
		{"login.podkey.test.:8443", "login", "", own.Login},
		{"westeurope.login.podkey.test:8443", "login", "", own.Login},
		{"management.podkey.test:8443", "management", "", own.Login},
		{"graph.podkey.test:8443", "graph", "", own.Login},
		{"issuer.podkey.test:8443", "issuer", "", own.Login},
		{"shop.vault.podkey.test:8443", "vault", "shop", own.Login},
		{"a.b.vault.podkey.test:8443", "none", "", own.Login},
		{".vault.podkey.test:8443", "none", "", own.Login},
		{"vault.podkey.test:8443", "none", "", own.Login},
		{"evil-podkey.test:8443", "none", "", own.Login},
		{"login.microsoftonline.com", "login", "", "https://login.microsoftonline.com"},
		{"login.microsoftonline.com:443", "login", "", "https://login.microsoftonline.com"},
		{"westeurope.login.microsoft.com", "login", "", "https://login.microsoftonline.com"},
		{"management.azure.com", "management", "", "https://login.microsoftonline.com"},
		{"shop.vault.azure.net", "vault", "shop", "https://login.microsoftonline.com"},
		{"a.b.vault.azure.net", "none", "", own.Login},
		{"shop.vault.azure.net.evil.example", "none", "", own.Login},
		{"127.0.0.1:8443", "origin", "", "https://127.0.0.1:8443"},
		{"[::1]:8443", "origin", "", "https://[::1]:8443"},
		{"localhost:8443", "origin", "", "https://localhost:8443"},
		{"", "none", "", own.Login},
		{"example.com", "none", "", own.Login},
	} {
		plane, names, vault := h.route(c.host)
		if plane.Name != c.plane || vault != c.vault || names.Login != c.login {
			t.Errorf("%q: %s %q %s, want %s %q %s", c.host, plane.Name, vault, names.Login, c.plane, c.vault, c.login)
		}
	}
}

func TestServesOnlyOurNames(t *testing.T) {
	for _, c := range []struct {
		host string
		port int
		want bool
	}{
		{"login.microsoftonline.com", 443, true},
		{"login.microsoftonline.com", 8443, false},
		{"shop.vault.azure.net", 443, true},
		{"login.podkey.test", 8443, true},
		{"shop.vault.podkey.test", 8443, true},
		{"podkey.test", 8443, false},
		{"127.0.0.1", 443, false},
		{"example.com", 443, false},
		{"azure.microsoft.com", 443, false},
		{"vault.azure.net", 443, false},
	} {
		if got := Serves("podkey.test:8443", c.host, c.port); got != c.want {
			t.Errorf("Serves(%s, %d) = %v", c.host, c.port, got)
		}
	}
}
