//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// memoryBudget is what a replica of the webhook may hold in memory with a
// thousand service accounts to look up: what is its own, that is, without the
// clean pages of the program, which the kernel drops when it wants to and
// which all of a node's Podkey processes share.
const memoryBudget = 40 << 20

// TestMemory fills the cluster with service accounts and asks the replicas
// what they hold.
func TestMemory(t *testing.T) {
	t.Parallel()
	ns := w.namespace(t, "crowd")
	var g errgroup.Group
	g.SetLimit(8)
	for i := range 1000 {
		g.Go(func() error {
			body := fmt.Sprintf(`{"metadata":{"name":"account-%d","annotations":{"azure.workload.identity/client-id":"01234567-89ab-cdef-0123-%012d","example.com/note":%q}}}`, i, i, strings.Repeat("x", 1000))
			status, answer, err := w.Do(t.Context(), "POST", "/api/v1/namespaces/"+ns+"/serviceaccounts", []byte(body))
			if err == nil && status != http.StatusCreated {
				err = fmt.Errorf("account %d: %d %s", i, status, answer)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	// The last one is known: then all are.
	out, err := w.Kubectl(t.Context(), reader(ns, "last", "account-999", "https://kv.vault.azure.net/", "x"), "create", "--dry-run=server", "-o", "yaml", "-f", "-")
	if err != nil || !strings.Contains(out, "01234567-89ab-cdef-0123-000000000999") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range w.replicas(t) {
		m := p.metrics(t)
		own := m["go_memstats_sys_bytes"] - m["go_memstats_heap_released_bytes"]
		t.Logf("%s: %.1f MiB of its own, %.1f MiB resident with the pages of its program", p.Metadata.Name, own/(1<<20), m["process_resident_memory_bytes"]/(1<<20))
		if own == 0 || own > memoryBudget {
			t.Errorf("%s holds %.0f bytes, budget %d", p.Metadata.Name, own, memoryBudget)
		}
	}
}

// TestEvents: a mistake that kubectl's user may not have seen is on the
// service account.
func TestEvents(t *testing.T) {
	t.Parallel()
	ns := w.namespace(t, "events")
	w.apply(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: bare, namespace: events}\n")
	w.apply(t, reader(ns, "pod", "bare", "https://kv.vault.azure.net/", "x"))
	eventually(t, "the event ClientIDMissing", func() (bool, string) {
		out, err := w.Kubectl(t.Context(), "", "-n", ns, "get", "events", "-o", `jsonpath={range .items[*]}{.involvedObject.kind}/{.involvedObject.name} {.reason} {.message}{"\n"}{end}`)
		return err == nil && strings.Contains(out, "ServiceAccount/bare ClientIDMissing "), out
	})
}
