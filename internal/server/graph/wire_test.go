package graph

import (
	"net/http"
	"testing"

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
			"owner": r.people["owner"].ObjectID, "operator": r.people["operator"].ObjectID, "person": r.people["person"].ObjectID,
		}
	})
}
