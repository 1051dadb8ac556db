package keyvault

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/podkey/podkey/internal/fault"
)

// route is one operation. The pipeline does everything that the table says;
// a handler only runs when all of it allowed the request.
type route struct {
	method  string
	pattern string // segments in lower case; {name} and {version} stand for one each
	// operation is the audit line's name, action the data action without the
	// provider's prefix, permission that of access policies for secrets.
	operation  string
	action     string
	permission string
	handle     func(*Handler, *request) error

	segments []string // of pattern
}

const actionPrefix = "Microsoft.KeyVault/vaults/"

// routes are all operations on secrets. Where two patterns match one path,
// the first counts.
var routes = withSegments([]route{
	{"GET", "/secrets", "SecretList", "secrets/readMetadata/action", "list", (*Handler).listSecrets, nil},
	{"POST", "/secrets/restore", "SecretRestore", "secrets/restore/action", "restore", (*Handler).restoreSecret, nil},
	{"GET", "/secrets/{name}", "SecretGet", "secrets/getSecret/action", "get", (*Handler).getSecret, nil},
	{"PUT", "/secrets/{name}", "SecretSet", "secrets/setSecret/action", "set", (*Handler).setSecret, nil},
	{"PATCH", "/secrets/{name}", "SecretUpdate", "secrets/update/action", "set", (*Handler).updateSecret, nil},
	{"DELETE", "/secrets/{name}", "SecretDelete", "secrets/delete", "delete", (*Handler).deleteSecret, nil},
	{"GET", "/secrets/{name}/versions", "SecretListVersions", "secrets/readMetadata/action", "list", (*Handler).listVersions, nil},
	{"POST", "/secrets/{name}/backup", "SecretBackup", "secrets/backup/action", "backup", (*Handler).backupSecret, nil},
	{"GET", "/secrets/{name}/{version}", "SecretGet", "secrets/getSecret/action", "get", (*Handler).getSecret, nil},
	{"PATCH", "/secrets/{name}/{version}", "SecretUpdate", "secrets/update/action", "set", (*Handler).updateSecret, nil},
	{"GET", "/deletedsecrets", "SecretListDeleted", "secrets/readMetadata/action", "list", (*Handler).listDeleted, nil},
	{"GET", "/deletedsecrets/{name}", "SecretGetDeleted", "secrets/readMetadata/action", "get", (*Handler).getDeleted, nil},
	{"DELETE", "/deletedsecrets/{name}", "SecretPurge", "secrets/purge/action", "purge", (*Handler).purgeSecret, nil},
	{"POST", "/deletedsecrets/{name}/recover", "SecretRecover", "secrets/recover/action", "recover", (*Handler).recoverSecret, nil},
})

func withSegments(rs []route) []route {
	for i := range rs {
		rs[i].segments = strings.Split(rs[i].pattern[1:], "/")
		rs[i].action = actionPrefix + rs[i].action
	}
	return rs
}

// otherKinds are the collections of the service that this vault does not
// keep, with the word for what is in them.
var otherKinds = map[string]string{
	"keys": "keys", "deletedkeys": "keys", "rng": "random bytes",
	"certificates": "certificates", "deletedcertificates": "certificates",
	"storage": "storage accounts", "deletedstorage": "storage accounts",
}

// maxSegments is the length of the longest pattern.
const maxSegments = 3

// target is what a request asks for: an operation, with the path's
// variables as they stand in it, or the error that says why there is none.
type target struct {
	route         *route
	name, version string
	err           error
}

// find chooses the route for a cleaned path in its escaped form. It compares
// literal segments without regard to case, as the service does; a variable
// keeps its case, and its escapes are undone here, so that an escaped slash
// stays inside it.
func find(method, escaped string) target {
	var segs [maxSegments]string
	n := 0
	for seg := range strings.SplitSeq(strings.TrimPrefix(escaped, "/"), "/") {
		if n == maxSegments {
			return target{err: unknownPath(escaped)}
		}
		segs[n] = seg
		n++
	}
	known := false
	for i := range routes {
		rt := &routes[i]
		if len(rt.segments) != n || !matches(rt.segments, segs[:n]) {
			continue
		}
		if rt.method != method {
			known = true
			continue
		}
		t := target{route: rt}
		if n > 1 && rt.segments[1] == "{name}" {
			t.name = unescape(segs[1])
		}
		if n > 2 && rt.segments[2] == "{version}" {
			t.version = strings.ToLower(unescape(segs[2]))
		}
		return t
	}
	if known {
		return target{err: badMethod(method)}
	}
	return target{err: unknownPath(escaped)}
}

func matches(pattern, segs []string) bool {
	for i, p := range pattern {
		if p[0] != '{' && !strings.EqualFold(p, segs[i]) || segs[i] == "" {
			return false
		}
	}
	return true
}

// unescape undoes percent-encoding. The edge has refused paths that are not
// validly encoded; one that came past it is left as it is, and is no name.
func unescape(seg string) string {
	if strings.IndexByte(seg, '%') < 0 {
		return seg
	}
	s, err := url.PathUnescape(seg)
	if err != nil {
		return seg
	}
	return s
}

func unknownPath(escaped string) error {
	first, _, _ := strings.Cut(strings.TrimPrefix(escaped, "/"), "/")
	if what, ok := otherKinds[strings.ToLower(first)]; ok {
		return fault.NotFound("ObjectTypeNotSupported", "This vault serves secrets only: it does not serve %s.", what)
	}
	return fault.NotFound("NotFound", "No resource of a vault matches the path of the request.")
}

func badMethod(method string) error {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		method = "of the request" // a method can be any word: it is not repeated
	}
	return fault.New(fault.BadMethod, "MethodNotAllowed", "The resource does not support the HTTP method %s.", method)
}

// methodOf is the method of a request. A client that can only send POST may
// name another one in the header X-HTTP-Method.
func methodOf(r *http.Request) string {
	if r.Method != http.MethodPost {
		return r.Method
	}
	override := r.Header["X-Http-Method"]
	if len(override) == 0 || override[0] == "" {
		return r.Method
	}
	return strings.ToUpper(override[0])
}
