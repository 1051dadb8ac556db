package arm

import (
	"net/http"
	"testing"

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
