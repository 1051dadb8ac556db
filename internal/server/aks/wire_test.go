package aks

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/web/wiretest"
)

// TestWire plays what known clients send. Bearer tokens are names of people,
// see newRig.
func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		r := newRig(t)
		modulus := func(name string) string {
			return base64.RawURLEncoding.EncodeToString(r.privateKey(name).N.Bytes())
		}
		return r.edge, map[string]string{
			"sub": homeSub, "otherSub": otherSub, "n1": modulus("one"), "n2": modulus("two"),
			"kubeconfig": strings.ReplaceAll(config, "\n", `\n`),
		}
	})
}
