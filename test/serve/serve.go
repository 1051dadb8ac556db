// Package serve starts `podkey server` in a process of its own, for tests that
// need one they can kill, or one for programs that are not Go.
package serve

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/podkey/podkey/internal/client"
)

// Build builds podkey into dir and returns the program's path. root is the
// directory of podkey's module.
func Build(root, dir string) (string, error) {
	out := filepath.Join(dir, "podkey")
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, "./cmd/podkey")
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build podkey: %w\n%s", err, b)
	}
	return out, nil
}

// Server is a running server.
type Server struct {
	Podkey   string // the program
	Data     string // its data directory
	Operator client.Operator
	Log      io.Writer // where its log goes, beside errors of its start

	cmd    *exec.Cmd
	exited chan struct{}
}

// patience is how long a start and an orderly end may take.
const patience = 60 * time.Second

// Start starts a server and waits until it is ready. listen is 127.0.0.1:0
// for a first start; a restart keeps the address. log receives every line that
// it prints; nil for none.
func Start(podkey, data, listen string, log io.Writer, args ...string) (*Server, error) {
	if log == nil {
		log = io.Discard
	}
	s := &Server{Podkey: podkey, Data: data, exited: make(chan struct{})}
	s.cmd = exec.Command(podkey, append([]string{"server", "--data", data, "--listen", listen}, args...)...)
	pipe, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready, ended := make(chan struct{}), make(chan string, 1)
	go func() {
		var said strings.Builder // until it is ready
		starting := true
		for sc := bufio.NewScanner(pipe); sc.Scan(); {
			fmt.Fprintln(log, sc.Text())
			if starting {
				said.WriteString(sc.Text() + "\n")
			}
			if strings.HasPrefix(sc.Text(), "podkey: ready") {
				starting = false
				close(ready)
			}
		}
		_ = s.cmd.Wait()
		close(s.exited)
		ended <- said.String()
	}()
	select {
	case <-ready:
	case said := <-ended:
		return nil, fmt.Errorf("the server did not start:\n%s", said)
	case <-time.After(patience):
		s.Stop(syscall.SIGKILL)
		return nil, fmt.Errorf("the server was not ready within %v", patience)
	}
	b, err := os.ReadFile(filepath.Join(data, client.OperatorFile))
	if err == nil {
		err = json.Unmarshal(b, &s.Operator)
	}
	if err != nil {
		s.Stop(syscall.SIGKILL)
		return nil, err
	}
	return s, nil
}

// Signal sends a signal.
func (s *Server) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

// Exited is closed when the process has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// PID is the process's number.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop sends a signal, SIGTERM or SIGKILL, and waits for the end. A process
// that does not follow SIGTERM in time is killed.
func (s *Server) Stop(sig syscall.Signal) {
	select {
	case <-s.exited:
		return
	default:
	}
	if err := s.Signal(sig); errors.Is(err, os.ErrProcessDone) {
		return
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}
