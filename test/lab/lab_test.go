//go:build e2e

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/test/lab"
)

// childVar makes of this test's program one that starts a lab, as every
// program of a suite does, and keeps it until its standard input ends.
const childVar = "PODKEY_LAB_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) == "" {
		os.Exit(m.Run())
	}
	os.Exit(lab.Run(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		_, err := lab.Binaries(ctx, os.Stderr)
		return err
	}, keep))
}

// keep starts a lab with a pod in it and says where it is.
func keep() int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := lab.Start(ctx, lab.Options{Nodes: 2})
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	defer c.Stop()
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println("ready", c.Dir(), ns)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// child is a lab in a process of its own.
type child struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	dir, ns string // its state, its namespace of processes
}

func startChild(t *testing.T) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVar+"=1")
	cmd.Stderr = os.Stderr
	// Not exec's pipe, which ends with the process that was started: then the
	// rest of the lab would be told to end in order.
	input, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	cmd.Stdin = input
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	input.Close()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 3 || words[0] != "ready" {
		t.Fatalf("the lab says %q, %v", line, err)
	}
	return &child{cmd, stdin, words[1], words[2]}
}

// processes are those of the child's namespace, by what they run. Containers
// have namespaces of their own in it, and are known by their cgroup.
func (c *child) processes(t *testing.T) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		ns, _ := os.Readlink(p + "/ns/pid") // none: it has ended
		group, _ := os.ReadFile(p + "/cgroup")
		if ns == c.ns || strings.Contains(string(group), filepath.Base(c.dir)+"/") {
			comm, _ := os.ReadFile(p + "/comm")
			out = append(out, strings.TrimSpace(string(comm)))
		}
	}
	return out
}

// leftovers are the child's directories: its state, and its cgroups in each
// hierarchy.
func (c *child) leftovers(t *testing.T) (out []string) {
	t.Helper()
	for _, pattern := range []string{c.dir, "/sys/fs/cgroup/" + filepath.Base(c.dir), "/sys/fs/cgroup/*/" + filepath.Base(c.dir)} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// TestKilledLabLeavesNothing kills the process of a suite with the one signal
// that it cannot do anything about. No process of the lab survives it, and
// the next lab starts as if nothing had been, and removes the files.
func TestKilledLabLeavesNothing(t *testing.T) {
	first := startChild(t)
	was := first.processes(t)
	for _, name := range []string{"etcd", "kube-apiserver", "kubelet", "coredns"} {
		if !strings.Contains(strings.Join(was, " "), name) {
			t.Errorf("%s is not among the processes of the lab: %v", name, was)
		}
	}
	if err := first.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for left := first.processes(t); len(left) > 0; left = first.processes(t) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("of the killed lab's %d processes, %v still run", len(was), left)
		}
	}
	t.Logf("%d processes ended within %v", len(was), time.Since(start).Round(time.Millisecond))
	if len(first.leftovers(t)) == 0 {
		t.Error("the killed lab left no files, so this test shows nothing about who removes them")
	}

	second := startChild(t)
	if left := first.leftovers(t); left != nil {
		t.Errorf("the next lab has left there what the killed one did: %v", left)
	}
	if err := second.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("the next lab ended with %v", err)
	}
	if left := append(second.processes(t), second.leftovers(t)...); left != nil {
		t.Errorf("the next lab, which was not killed, has left %v", left)
	}
	if _, err := os.Stat(second.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", second.dir, err)
	}
}
