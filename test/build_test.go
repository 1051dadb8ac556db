package test

import (
	"bufio"
	"encoding/json"
	"errors"
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

// process is a podkey server in a process of its own.
type process struct {
	cmd    *exec.Cmd
	op     client.Operator
	exited chan struct{}
}

// startProcess starts `podkey server` on dir and waits until it is ready.
// listen is 127.0.0.1:0 for a first start; a restart keeps the address.
func startProcess(t testing.TB, dir, listen string, args ...string) *process {
	t.Helper()
	p, err := launch(program(t, "podkey"), dir, listen, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(syscall.SIGTERM) })
	return p
}

// launch is startProcess for those who stop the process themselves.
func launch(podkey, dir, listen string, args ...string) (*process, error) {
	p := &process{exited: make(chan struct{})}
	p.cmd = exec.Command(podkey, append([]string{"server", "--data", dir, "--listen", listen}, args...)...)
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready, ended := make(chan struct{}), make(chan string, 1)
	go func() {
		var said strings.Builder
		for s := bufio.NewScanner(pipe); s.Scan(); {
			said.WriteString(s.Text() + "\n")
			if strings.HasPrefix(s.Text(), "podkey: ready") {
				close(ready)
			}
		}
		p.cmd.Wait()
		close(p.exited)
		ended <- said.String()
	}()
	select {
	case <-ready:
	case said := <-ended:
		return nil, fmt.Errorf("the server did not start:\n%s", said)
	case <-time.After(30 * time.Second):
		p.stop(syscall.SIGKILL)
		return nil, errors.New("the server was not ready within 30 s")
	}
	b, err := os.ReadFile(filepath.Join(dir, client.OperatorFile))
	if err == nil {
		err = json.Unmarshal(b, &p.op)
	}
	if err != nil {
		p.stop(syscall.SIGKILL)
		return nil, err
	}
	return p, nil
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
