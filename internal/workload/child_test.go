package workload_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/workload"
)

// The test binary is also the programs that the tests start: mode says which.
const modeVar = "PODKEY_TEST_MODE"

func TestMain(m *testing.M) {
	switch os.Getenv(modeVar) {
	case "":
		os.Exit(m.Run())
	case "runner":
		os.Exit(runner())
	case "signals":
		os.Exit(signals())
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		select {}
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "leave":
		os.Exit(leaveGrandchild())
	case "linger":
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "say":
		os.Exit(say())
	case "get":
		os.Exit(get())
	}
	panic("unknown mode")
}

// mode is the environment that makes the test binary a program.
func mode(name string, more ...string) []string {
	return slices.Concat(os.Environ(), []string{modeVar + "=" + name}, more)
}

// runner is podkey's part: it runs the program of mode PODKEY_TEST_CHILD and
// exits as that did.
func runner() int {
	code, err := workload.Run(context.Background(), workload.Command{
		Args:   []string{os.Args[0]},
		Env:    mode(os.Getenv("PODKEY_TEST_CHILD")),
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// signals reports each signal that it gets, and ends with a count of the
// SIGINTs, and code 5, at SIGTERM.
func signals() int {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	fmt.Println("ready")
	ints := 0
	for s := range c {
		fmt.Println(s)
		if s == syscall.SIGINT {
			ints++
		}
		if s == syscall.SIGTERM {
			fmt.Println("interrupts:", ints)
			return 5
		}
	}
	return 1
}

// say shows what a program was given.
func say() int {
	in, _ := io.ReadAll(os.Stdin)
	dir, _ := os.Getwd()
	fmt.Printf("in %s\ndir %s\nx %s\nargs %s\n", in, dir, os.Getenv("X"), strings.Join(os.Args[1:], "|"))
	fmt.Fprint(os.Stderr, "talk")
	return 7
}

// leaveGrandchild ends and leaves a process behind that holds its output open.
func leaveGrandchild() int {
	cmd := exec.Command(os.Args[0])
	cmd.Env = mode("linger")
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// get fetches the URLs of its arguments as any Go program would, and shows
// what came.
func get() int {
	c := http.Client{Timeout: patience}
	for _, u := range os.Args[1:] {
		resp, err := c.Get(u)
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		fmt.Printf("%d %s\n", resp.StatusCode, b)
	}
	return 0
}

// patience bounds every wait for something that happens at once.
const patience = 20 * time.Second

// started is a process whose output a test follows.
type started struct {
	t   testing.TB
	cmd *exec.Cmd
	out *bufio.Reader
}

// launch starts cmd, with its output piped to the test unless it has one.
func launch(t testing.TB, cmd *exec.Cmd) *started {
	t.Helper()
	s := &started{t: t, cmd: cmd}
	if cmd.Stdout == nil {
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		s.out = bufio.NewReader(out)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A test that waits for a line that never comes ends here.
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		timer.Stop()
		cmd.Process.Kill()
	})
	return s
}

// line reads the next line of output.
func (s *started) line(want string) {
	s.t.Helper()
	got, err := s.out.ReadString('\n')
	if got = strings.TrimSpace(got); got != want || err != nil {
		s.t.Fatalf("output is %q and %v, want %q", got, err, want)
	}
}

func (s *started) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// exit waits for the process and returns its exit code.
func (s *started) exit() int {
	s.t.Helper()
	err := s.cmd.Wait()
	if ee, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.t.Fatal(ee, err)
	}
	return s.cmd.ProcessState.ExitCode()
}
