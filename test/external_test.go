package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/podkey/podkey/internal/store/storetest"
)

// TestTwoServersOnOneEtcd runs two servers on an external etcd that demands
// client certificates: what one acknowledges, the other shows at once.
func TestTwoServersOnOneEtcd(t *testing.T) {
	etcd := storetest.NewEtcd(t)
	shared := t.TempDir()
	etcd.CA.Write(t, shared, "client")
	args := []string{
		"--etcd-endpoints", strings.Join(etcd.Endpoints, ","), "--etcd-ca", filepath.Join(shared, "ca.pem"),
		"--etcd-cert", filepath.Join(shared, "client.pem"), "--etcd-key", filepath.Join(shared, "client-key.pem"),
		"--kek", filepath.Join(shared, "kek.json"), "--domain", "podkey.localhost:8443",
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	a := startProcess(t, dirs[0], "127.0.0.1:0", args...)
	b := startProcess(t, dirs[1], "127.0.0.1:0", args...)
	if a.Operator.TenantID != b.Operator.TenantID || a.Operator.SubscriptionID != b.Operator.SubscriptionID {
		t.Fatal("the servers made two tenants")
	}
	apply(t, dirs[0], strings.Replace(durable, "durable", "shared", 1))
	here, there := open(t, dirs[0]), open(t, dirs[1])
	for i := range 200 {
		from, to := here, there
		if i%2 == 1 {
			from, to = there, here
		}
		value := fmt.Sprint("value-", i)
		if err := from.Vault(t.Context(), "shared", "PUT", "/secrets/s?api-version=7.5", map[string]string{"value": value}, nil); err != nil {
			t.Fatal(err)
		}
		var got struct{ Value string }
		if err := to.Vault(t.Context(), "shared", "GET", "/secrets/s?api-version=7.5", nil, &got); err != nil || got.Value != value {
			t.Fatalf("round %d: the other server shows %q %v, want %q", i, got.Value, err, value)
		}
	}
	// One of them dies; the other goes on.
	a.Stop(syscall.SIGKILL)
	if err := there.Vault(t.Context(), "shared", "PUT", "/secrets/s?api-version=7.5", map[string]string{"value": "after"}, nil); err != nil {
		t.Fatal(err)
	}
}
