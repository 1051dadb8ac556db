package deploy

import (
	"sync"
	"testing"
)

// TestConcurrent: of deployments with one name at the same time, each is done
// or refused as active, and the last one seen is whole.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text := body(file(t, "vault.json"), vaultParameters)
	var wg sync.WaitGroup
	answers := make([]*answer, 8)
	for i := range answers {
		wg.Go(func() { answers[i] = r.do("owner", "PUT", at+"d", text) })
	}
	wg.Wait()
	done := 0
	for _, a := range answers {
		switch {
		case a.status == 409 && a.at("error.code") == "DeploymentActive":
		case (a.status == 200 || a.status == 201) && a.at("properties.provisioningState") == "Succeeded":
			done++
		default:
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := r.must(200, "owner", "GET", at+"d", nil); done == 0 || a.at("properties.provisioningState") != "Succeeded" {
		t.Errorf("%d done: %s", done, a.body)
	}
}
