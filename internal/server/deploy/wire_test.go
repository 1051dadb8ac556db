package deploy

import (
	"net/http"
	"testing"

	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web/wiretest"
)

// TestWire plays what known clients send. Bearer tokens are names: owner of the
// subscription and reader of its group.
func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		r := newRig(t)
		r.person("reader", rbac.Reader, group)
		return r.edge, map[string]string{"sub": sub}
	})
}
