package graph

import (
	"encoding/base64"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/podkey/podkey/internal/web/wiretest"
)

// TestWire plays what the az command line sends. Bearer tokens are names, see
// newRig.
func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		r := newRig(t)
		return r.edge, map[string]string{
			"tenant": homeTenant, "graph": "https://graph.podkey.test", "identity": identityID,
			"identityClient": r.mi.ClientID, "identityPrincipal": r.mi.PrincipalID,
			"certificate": base64.StdEncoding.EncodeToString(certificateDER(t)),
			"owner":       r.people["owner"].ObjectID, "operator": r.people["operator"].ObjectID, "person": r.people["person"].ObjectID,
		}
	})
}

// TestWireCoversEveryRoute finds, for each route of the plane, a written
// exchange that uses it.
func TestWireCoversEveryRoute(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	routes := (&Handler{}).routes()
	seen := map[*route]bool{}
	placeholder := regexp.MustCompile(`{{\w+}}`)
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range ar.Files {
			line, _, _ := strings.Cut(string(part.Data), "\n")
			method, target, ok := strings.Cut(line, " ")
			if part.Name != "request" || !ok || strings.HasPrefix(target, "{{") {
				continue
			}
			path, _, _ := strings.Cut(placeholder.ReplaceAllString(target, "x"), "?")
			_, segments, err := parsePath(path)
			if err != nil {
				continue // a version that there is not
			}
			if rt, _, err := match(routes, method, segments); err == nil {
				seen[rt] = true
			}
		}
	}
	for i := range routes {
		if !seen[&routes[i]] {
			t.Errorf("no exchange in testdata/wire uses %s %s", routes[i].method, routes[i].pattern)
		}
	}
}
