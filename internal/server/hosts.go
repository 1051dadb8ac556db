package server

import (
	"net"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// hosts chooses the plane by the host of a request: the small switch before
// any mux. It knows Podkey's own names under a domain, Azure's names, and
// bare addresses.
type hosts struct {
	domain     string // own names' suffix, without port
	own, azure *web.Names
	login      *web.Plane
	management *web.Plane
	graph      *web.Plane
	vault      *web.Plane
	issuer     *web.Plane
	origin     *web.Plane // login, management and graph by path, for bare addresses
	unknown    *web.Plane
}

// face is what a host name stands for.
type face uint8

const (
	noFace face = iota
	loginFace
	managementFace
	graphFace
	vaultFace
	issuerFace
	originFace // a bare address
)

// Serves reports whether a server of the domain answers for a host name, under
// its own names or Azure's: what a proxy may let through. Azure's names are
// good on port 443 alone.
func Serves(domain, host string, port int) bool {
	f, azure, _ := classify(hostOf(domain), host)
	return f != noFace && f != originFace && (!azure || port == 443)
}

// classify says what a lower-case host name without port stands for, whether
// it is one of Azure's, and the vault's name.
func classify(domain, name string) (f face, azure bool, vault string) {
	name = strings.TrimSuffix(name, ".")
	if sub, ok := strings.CutSuffix(name, "."+domain); ok {
		f, vault = classifyOwn(sub)
		return f, false, vault
	}
	if v, ok := strings.CutSuffix(name, ".vault.azure.net"); ok && v != "" && !strings.Contains(v, ".") {
		return vaultFace, true, v
	}
	switch {
	case azureLogin(name):
		return loginFace, true, ""
	case name == "management.azure.com", name == "management.core.windows.net":
		return managementFace, true, ""
	case name == "graph.microsoft.com":
		return graphFace, true, ""
	case name == "localhost", name == domain, net.ParseIP(strings.Trim(name, "[]")) != nil:
		return originFace, false, ""
	}
	return noFace, false, ""
}

func classifyOwn(sub string) (face, string) {
	switch sub {
	case "login":
		return loginFace, ""
	case "management":
		return managementFace, ""
	case "graph":
		return graphFace, ""
	case "issuer":
		return issuerFace, ""
	}
	switch label, rest, _ := strings.Cut(sub, "."); {
	case label == "":
	case rest == "vault":
		return vaultFace, label
	case rest == "login": // <label>.login.D: the regional authority of MSAL (AZURE_REGIONAL_AUTHORITY_NAME)
		return loginFace, ""
	}
	return noFace, ""
}

// route implements web.Edge's Route. host is lower case, maybe with a port,
// which plays no part: own names carry the configured one in every answer.
func (h *hosts) route(host string) (*web.Plane, *web.Names, string) {
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name = host[:i]
	}
	f, azure, vault := classify(h.domain, name)
	names := h.own
	if azure {
		names = h.azure
	}
	switch f {
	case loginFace:
		return h.login, names, ""
	case managementFace:
		return h.management, names, ""
	case graphFace:
		return h.graph, names, ""
	case vaultFace:
		return h.vault, names, vault
	case issuerFace:
		return h.issuer, names, ""
	case originFace:
		return h.origin, h.own.At("https://" + host), ""
	}
	return h.unknown, names, ""
}

// azureLogin reports whether name is one of the public cloud's login hosts:
// the current one, the older ones that clients still have in their lists, and
// the regional ones.
func azureLogin(name string) bool {
	switch name {
	case "login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net":
		return true
	}
	label, rest, _ := strings.Cut(name, ".")
	return label != "" && (rest == "login.microsoftonline.com" || rest == "login.microsoft.com")
}

// isAzureName reports whether a TLS client that asks for name expects the
// certificate of Azure's names.
func isAzureName(name string) bool {
	for _, suffix := range []string{".microsoftonline.com", ".microsoft.com", ".windows.net", ".azure.com", ".azure.net"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// servesLogin reports whether a host, maybe with a port, carries the token
// service.
func (s *Server) servesLogin(host string) bool {
	plane, _, _ := s.hosts.route(host)
	return plane == s.hosts.login || plane == s.hosts.origin
}

// originPlane serves login, management and graph from one origin: their paths
// do not collide.
func (h *hosts) originPlane() *web.Plane {
	pick := func(r *http.Request) *web.Plane {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch strings.ToLower(first) {
		case "subscriptions", "tenants", "providers", "metadata", "":
			return h.management
		case "v1.0", "beta":
			return h.graph
		case "clusters":
			return h.issuer
		}
		return h.login
	}
	return &web.Plane{
		Name: "origin", MaxBody: h.management.MaxBody,
		Serve: func(w http.ResponseWriter, r *http.Request) error { return pick(r).Serve(w, r) },
		Fail:  func(w http.ResponseWriter, r *http.Request, err error) { pick(r).Fail(w, r, err) },
	}
}

// refuseAll is a plane that has nothing to serve and says so in ARM's error
// shape, which every client can print.
func refuseAll(name, code, message string) *web.Plane {
	return &web.Plane{
		Name: name,
		Serve: func(w http.ResponseWriter, r *http.Request) error {
			return fault.NotFound(code, "%s", message)
		},
		Fail: func(w http.ResponseWriter, r *http.Request, err error) {
			f, ok := fault.As(err)
			if !ok {
				f = &fault.Error{Kind: fault.Internal, Code: "InternalServerError", Message: "The server encountered an internal error."}
			}
			w.Header().Set("x-ms-request-id", web.CallOf(r.Context()).ID)
			_ = web.WriteJSON(w, f.Kind.Status(), map[string]any{"error": map[string]string{"code": f.Code, "message": f.Message}})
		},
	}
}
