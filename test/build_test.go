package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/client"
)

// binaries builds podkey and the sample program once for all tests.
var binaries = sync.OnceValues(func() (dir string, err error) {
	dir, err = os.MkdirTemp("", "podkey-test-bin-")
	if err != nil {
		return "", err
	}
	for name, src := range map[string]string{"podkey": "../cmd/podkey", "read-secret": "../samples/read-secret"} {
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

// process is a podkey server in a process of its own.
type process struct {
	cmd    *exec.Cmd
	op     client.Operator
	stderr *bytes.Buffer
	exited chan struct{}
}

// startProcess starts `podkey server` on dir and waits until it is ready.
// listen is 127.0.0.1:0 for a first start; a restart keeps the address.
func startProcess(t testing.TB, dir, listen string, args ...string) *process {
	t.Helper()
	p := &process{stderr: &bytes.Buffer{}, exited: make(chan struct{})}
	p.cmd = exec.Command(program(t, "podkey"), append([]string{"server", "--data", dir, "--listen", listen}, args...)...)
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	var mu sync.Mutex
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			mu.Lock()
			p.stderr.WriteString(s.Text() + "\n")
			mu.Unlock()
			if strings.HasPrefix(s.Text(), "podkey: ready") {
				ready <- true
			}
		}
		p.cmd.Wait()
		close(p.exited)
		ready <- false
	}()
	t.Cleanup(func() { p.stop(syscall.SIGTERM) })
	select {
	case ok := <-ready:
		if !ok {
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("the server did not start:\n%s", p.stderr)
		}
	case <-time.After(30 * time.Second):
		p.stop(syscall.SIGKILL)
		t.Fatal("the server was not ready within 30 s")
	}
	b, err := os.ReadFile(filepath.Join(dir, client.OperatorFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &p.op); err != nil {
		t.Fatal(err)
	}
	return p
}

// stop sends a signal and waits for the end.
func (p *process) stop(sig syscall.Signal) {
	select {
	case <-p.exited:
		return
	default:
	}
	_ = p.cmd.Process.Signal(sig)
	<-p.exited
}

// podkey runs a podkey command and returns its output.
func podkey(t testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "podkey"), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
