//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for what takes a real cluster seconds.
const patience = 90 * time.Second

// namespace makes a namespace for a test and removes it afterwards.
func (x *world) namespace(t *testing.T, name string) string {
	t.Helper()
	if _, err := x.Kubectl(t.Context(), "", "create", "namespace", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := x.Kubectl(context.Background(), "", "delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	return name
}

// person runs a script for a test, which has a home of its own: az writes the
// kubeconfig there in place, and a kubectl of another test would read it half
// written.
func (x *world) person(t *testing.T, script string) (string, error) {
	t.Helper()
	home := filepath.Join(x.home, strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.MkdirAll(filepath.Join(home, ".kube"), 0o700); err != nil {
		t.Fatal(err)
	}
	return x.shell(t.Context(), home, script)
}

// must runs a script, and fails the test if it fails.
func (x *world) must(t *testing.T, script string) string {
	t.Helper()
	out, err := x.person(t, script)
	if err != nil {
		t.Fatalf("%v\n%s\nof the script:\n%s", err, out, script)
	}
	return out
}

// shows runs a script whose output must have a text in it.
func (x *world) shows(t *testing.T, script, want string) {
	t.Helper()
	if out := x.must(t, script); !strings.Contains(out, want) {
		t.Errorf("%s\nshows %q, want %q", script, out, want)
	}
}

// apply applies manifests.
func (x *world) apply(t *testing.T, manifests string) {
	t.Helper()
	if _, err := x.Kubectl(t.Context(), manifests, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// eventually asks until it is told yes. What it was told last is in the
// failure.
func eventually(t *testing.T, what string, ask func() (ok bool, seen string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, seen := ask()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v; last seen:\n%s", what, patience, seen)
		}
	}
}

// logged waits until a pod has logged a text.
func (x *world) logged(t *testing.T, ns, pod, want string) {
	t.Helper()
	eventually(t, pod+" logs "+want, func() (bool, string) {
		out, err := x.Kubectl(t.Context(), "", "-n", ns, "logs", pod, "--all-containers")
		if strings.Contains(out, want) {
			return true, ""
		}
		if err != nil {
			out += err.Error()
		}
		described, _ := x.Kubectl(t.Context(), "", "-n", ns, "describe", "pod", pod)
		return false, out + "\n" + described
	})
}

// testdata is the path of a file of the suite.
func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
