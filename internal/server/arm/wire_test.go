package arm

import (
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
	"github.com/podkey/podkey/internal/web/wiretest"
)

// TestWire plays what known clients send. Bearer tokens are names: owner of
// the subscription, reader of it, and stranger of another tenant.
func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		r := newRig(t)
		r.names = web.OwnNames("podkey.test")
		r.person("reader", homeTenant)
		r.grant("reader", rbac.Reader, "/subscriptions/"+homeSub)
		r.person("stranger", otherTenant)
		return r.edge, map[string]string{
			"tenant": homeTenant, "sub": homeSub, "ownerId": r.people["owner"].ObjectID, "ownerApp": r.people["owner"].AppID,
			"readerId": r.people["reader"].ObjectID, "readerApp": r.people["reader"].AppID,
			"otherTenant": otherTenant, "secretsUser": rbac.KeyVaultSecretsUser,
		}
	})
}

// TestWireCoversEveryRoute finds, for each route of the plane, a written
// exchange that uses it.
func TestWireCoversEveryRoute(t *testing.T) {
	r := newRig(t)
	files, err := filepath.Glob("testdata/wire/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	type used struct {
		name, method string
		collection   bool
	}
	var seen []used
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
			u, err := url.Parse(placeholder.ReplaceAllString(target, homeSub))
			if err != nil {
				t.Fatal(err)
			}
			id, err := ParseID(u.Path)
			if err != nil || r.h.reg.find(id) == nil {
				continue
			}
			seen = append(seen, used{r.h.reg.find(id).Name, method, !id.Item()})
		}
	}
	for _, p := range r.h.Permissions() {
		if !slices.Contains(seen, used{p.Type, p.Method, p.Collection}) {
			t.Errorf("no exchange in testdata/wire uses %s %s (collection: %v)", p.Method, p.Type, p.Collection)
		}
	}
}
