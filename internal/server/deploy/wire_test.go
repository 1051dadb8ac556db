package deploy

import (
	"net/http"
	"testing"

	"github.com/podkey/podkey/internal/web/wiretest"
)

func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		r := newRig(t)
		return r.edge, map[string]string{"sub": sub}
	})
}
