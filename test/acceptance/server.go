package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/podkey/podkey/internal/client"
)

// server is a podkey server in a process of its own, on a data directory of
// its own. Its log is DATA/../server.log.
type server struct {
	podkey string // the program
	data   string
	op     client.Operator
	cmd    *exec.Cmd
	exited chan struct{}
}

// build builds podkey and the sample program into dir.
func build(root, dir string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "podkey"), "./cmd/podkey")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build podkey: %w\n%s", err, out)
	}
	return nil
}

// startServer starts a server on a new data directory in dir and waits until
// it is ready.
func startServer(podkey, dir string) (*server, error) {
	s := &server{podkey: podkey, data: filepath.Join(dir, "data"), exited: make(chan struct{})}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	s.cmd = exec.Command(podkey, "server", "--data", s.data, "--listen", "127.0.0.1:0", "--log-level", "debug")
	pipe, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		for sc := bufio.NewScanner(pipe); sc.Scan(); {
			fmt.Fprintln(log, sc.Text())
			if strings.HasPrefix(sc.Text(), "podkey: ready") {
				close(ready)
			}
		}
		_ = s.cmd.Wait()
		log.Close()
		close(s.exited)
	}()
	select {
	case <-ready:
	case <-s.exited:
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("the server did not start:\n%s", said)
	case <-time.After(60 * time.Second):
		s.stop()
		return nil, errors.New("the server was not ready within 60 s")
	}
	b, err := os.ReadFile(filepath.Join(s.data, client.OperatorFile))
	if err == nil {
		err = json.Unmarshal(b, &s.op)
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// stop ends the server and waits for the end.
func (s *server) stop() {
	select {
	case <-s.exited:
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}
