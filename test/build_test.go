package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/podkey/podkey/test/serve"
)

// binaries builds podkey, the sample program and fetch once for all tests.
var binaries = sync.OnceValues(func() (dir string, err error) {
	dir, err = os.MkdirTemp("", "podkey-test-bin-")
	if err != nil {
		return "", err
	}
	for name, src := range map[string]string{"podkey": "../cmd/podkey", "read-secret": "../samples/read-secret", "fetch": "fetch"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), ".")
		cmd.Dir = src
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := binaries(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// program returns the path of a built program.
func program(t testing.TB, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// startProcess starts `podkey server` on dir and waits until it is ready.
// listen is 127.0.0.1:0 for a first start; a restart keeps the address.
func startProcess(t testing.TB, dir, listen string, args ...string) *serve.Server {
	t.Helper()
	p, err := serve.Start(program(t, "podkey"), dir, listen, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGTERM) })
	return p
}
