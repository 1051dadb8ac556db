package workload_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/workload"
)

func TestRunPassesEverything(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	code, err := workload.Run(t.Context(), workload.Command{
		Args:   []string{os.Args[0], "a b", "", "$X"},
		Env:    mode("say", "X=y z"),
		Dir:    dir,
		Stdin:  strings.NewReader("words"),
		Stdout: &out,
		Stderr: &errOut,
	})
	if err != nil || code != 7 {
		t.Errorf("exit code %d and %v, want 7", code, err)
	}
	if d := cmp.Diff("in words\ndir "+dir+"\nx y z\nargs a b||$X\n", out.String()); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
	if errOut.String() != "talk" {
		t.Errorf("standard error %q", errOut.String())
	}
}

func TestRunExitCodes(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		code int
		err  error
	}{
		{"killed", []string{os.Args[0]}, mode("die"), 128 + 9, nil},
		{"not in PATH", []string{"podkey-no-such-program"}, nil, 127, exec.ErrNotFound},
		{"no such path", []string{filepath.Join(plain, "no")}, nil, 126, syscall.ENOTDIR},
		{"no such file", []string{plain + "-no"}, nil, 127, fs.ErrNotExist},
		{"not executable", []string{plain}, nil, 126, fs.ErrPermission},
		{"a directory", []string{filepath.Dir(plain)}, nil, 126, fs.ErrPermission},
	} {
		code, err := workload.Run(t.Context(), workload.Command{Args: tt.args, Env: tt.env})
		if code != tt.code || !errors.Is(err, tt.err) {
			t.Errorf("%s: exit code %d and %v, want %d and %v", tt.name, code, err, tt.code, tt.err)
		}
	}
	if _, err := workload.Run(t.Context(), workload.Command{}); err == nil {
		t.Error("ran no command")
	}
}

// apart starts the runner without a terminal, in a session of its own.
func apart(child string, argv ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	if len(argv) > 0 {
		cmd = exec.Command(argv[0], argv[1:]...)
	}
	cmd.Env = mode("runner", "PODKEY_TEST_CHILD="+child)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func TestRunForwardsSignals(t *testing.T) {
	s := launch(t, apart("signals"))
	s.line("ready")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGINT} {
		s.signal(sig)
		s.line(sig.String())
	}
	s.signal(syscall.SIGTERM)
	s.line("terminated")
	s.line("interrupts: 2")
	if code := s.exit(); code != 5 {
		t.Errorf("exit code %d, want the child's 5", code)
	}
}

// nohup starts a program with SIGHUP ignored, and means it.
func TestRunKeepsIgnoredSignals(t *testing.T) {
	s := launch(t, apart("signals", "sh", "-c", `trap "" HUP; exec "$0"`, os.Args[0]))
	s.line("ready")
	s.signal(syscall.SIGHUP)
	s.signal(syscall.SIGTERM)
	s.line("terminated")
	s.line("interrupts: 0")
	if code := s.exit(); code != 5 {
		t.Errorf("exit code %d", code)
	}
}

// lineWatch calls f once, when what was written holds a line.
type lineWatch struct {
	f    func()
	done bool
}

func (w *lineWatch) Write(p []byte) (int, error) {
	if !w.done && bytes.ContainsRune(p, '\n') {
		w.done = true
		w.f()
	}
	return len(p), nil
}

func TestRunStopsWithContext(t *testing.T) {
	dead := errors.New("the server died")
	for _, tt := range []struct {
		child string
		grace time.Duration
		code  int
	}{
		{"signals", 0, 5}, // heeds SIGTERM
		{"stubborn", 30 * time.Millisecond, 128 + 9}, // does not
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		code, err := workload.Run(ctx, workload.Command{
			Args:   []string{os.Args[0]},
			Env:    mode(tt.child),
			Stdout: &lineWatch{f: func() { cancel(dead) }},
			Grace:  tt.grace,
		})
		if code != tt.code || !errors.Is(err, dead) {
			t.Errorf("%s: exit code %d and %v, want %d and %v", tt.child, code, err, tt.code, dead)
		}
		cancel(nil)
	}
}

// A daemon that the child left behind must not keep us waiting for the end of
// its output.
func TestRunDoesNotWaitForGrandchildren(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // ends the grandchild
	var out bytes.Buffer
	code, err := workload.Run(t.Context(), workload.Command{
		Args:   []string{os.Args[0]},
		Env:    mode("leave"),
		Stdin:  r,
		Stdout: &out,
		Grace:  30 * time.Millisecond,
	})
	if code != 0 || err != nil {
		t.Errorf("exit code %d and %v: %s", code, err, out.String())
	}
}
