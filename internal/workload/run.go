package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes of a command that could not be started, as shells and env(1)
// have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// defaultGrace is how long a child that was told to stop may take.
const defaultGrace = 10 * time.Second

// Command is a program to run. Args must be set.
type Command struct {
	Args []string // the program, looked up in PATH, and its arguments
	Env  []string // the whole environment, see [Env.Apply]
	Dir  string   // working directory; empty means ours

	Stdin          io.Reader // pass os.Stdin itself, so that no copy is made and a terminal stays one
	Stdout, Stderr io.Writer

	// Grace is the time between SIGTERM and SIGKILL when ctx ends; 0 means
	// 10 s.
	Grace time.Duration
}

// Run starts the program, waits for it and returns its exit code: 128+n if
// signal n ended it, 127 if it was not found and 126 if it could not be
// executed, both with an error.
//
// SIGINT, SIGTERM, SIGHUP and SIGQUIT that reach us while it runs are passed
// on, and do not end us: what the child makes of them is its affair, and its
// exit code is ours. Signals that we were started with ignored, as by nohup,
// stay ignored. The child stays in our process group, so that the terminal's
// job control (Ctrl-C, Ctrl-Z, fg) treats us as one job; a SIGINT or SIGQUIT
// that the terminal sends to that group has reached the child already and is
// not passed on a second time, since many programs take the second Ctrl-C for
// an order to stop without cleaning up.
//
// So ctx must not be one that these signals end (signal.NotifyContext). It is
// for ends that the person did not ask for, such as a server that died: then
// the child gets SIGTERM, after Grace SIGKILL, and the error is ctx's cause.
func Run(ctx context.Context, c Command) (exitCode int, err error) {
	if len(c.Args) == 0 {
		return exitNotFound, errors.New("no command to run")
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// Also bounds the wait for a grandchild that holds a pipe of ours open.
	if cmd.WaitDelay = c.Grace; cmd.WaitDelay == 0 {
		cmd.WaitDelay = defaultGrace
	}

	// Asked for before the start: a signal in between waits in the channel.
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)

	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return exitNotFound, fmt.Errorf("run %s: %w", c.Args[0], err)
		}
		return exitNotExecutable, fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	ended := make(chan struct{})
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		forward(signals, ended, cmd.Process)
	}()
	err = cmd.Wait()
	close(ended)
	<-forwarded

	code := exitCodeOf(cmd.ProcessState)
	if cause := context.Cause(ctx); cause != nil {
		return code, fmt.Errorf("%s was stopped: %w", c.Args[0], cause)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok || err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return code, nil
	}
	return code, fmt.Errorf("run %s: %w", c.Args[0], err)
}

// forward passes signals on until the child has ended.
func forward(signals <-chan os.Signal, ended <-chan struct{}, child *os.Process) {
	for {
		select {
		case s := <-signals:
			if (s == syscall.SIGINT || s == syscall.SIGQUIT) && inForeground() {
				continue
			}
			// The only possible error is that the child has ended.
			_ = child.Signal(s)
		case <-ended:
			return
		}
	}
}
