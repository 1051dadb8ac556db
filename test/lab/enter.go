//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// roleVar tells a process of the test binary which part it plays: none for
// the one that was started, "init" for the first process of the lab, "inside"
// for the one that runs the tests.
const roleVar = "PODKEY_LAB_ROLE"

// Run runs f, such as testing.M's Run, inside new namespaces and returns its
// result. It needs root. Nothing in there reaches a network beyond the lab:
// what must be downloaded, or built from what must be, is done before, by
// prepare, which may be nil. The calling process then waits for the lab's
// first process, which ends with everything in it when the caller does.
func Run(prepare func() error, f func() int) int {
	switch os.Getenv(roleVar) {
	case "inside":
		return f()
	case "init":
		return first()
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "lab: namespaces, mounts and containers need root; run: sudo make e2e")
		return 1
	}
	err := Prerequisites()
	if err == nil && prepare != nil {
		err = prepare()
	}
	code := 1
	if err == nil {
		code, err = enter()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
	return code
}

// enter starts this program again as the first process of new namespaces.
func enter() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVar+"=init")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		// The first process's end is the end of everything in its namespaces.
		Pdeathsig: syscall.SIGKILL,
	}
	// The death signal is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("new namespaces: %w", err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case err := <-done:
			if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
				return 1, err
			}
			code := cmd.ProcessState.ExitCode()
			if code < 0 {
				code, err = 1, fmt.Errorf("the lab ended by %v", cmd.ProcessState)
			} else {
				err = nil
			}
			return code, errors.Join(err, sweep())
		}
	}
}

// first is the lab's first process: it makes the mounts, starts the tests and
// buries every process whose parent has gone, which would otherwise fall to
// nobody: containers' shims leave their parents on purpose.
func first() int {
	if err := mounts(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	// Not by os/exec: its Wait and the loop below would take children from
	// one another.
	child, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Env:   append(withoutRole(os.Environ()), roleVar+"=inside"),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = unix.Kill(child.Pid, s.(syscall.Signal))
		}
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "lab: wait:", err)
			return 1
		case pid == child.Pid && status.Exited():
			return status.ExitStatus()
		case pid == child.Pid && status.Signaled():
			fmt.Fprintln(os.Stderr, "lab: the tests ended by signal:", status.Signal())
			return 1
		}
	}
}

func withoutRole(env []string) []string {
	var out []string
	for _, v := range env {
		if len(v) <= len(roleVar) || v[:len(roleVar)+1] != roleVar+"=" {
			out = append(out, v)
		}
	}
	return out
}

// mounts makes the file system of the lab: that of the machine, with process
// information of the lab's own processes, and directories of its own wherever
// Kubernetes has fixed ones. Nothing of it is seen outside.
func mounts() error {
	mount := func(source, target, kind string, flags uintptr) error {
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", source, target, err)
		}
		return nil
	}
	err := errors.Join(
		mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE),
		mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC),
	)
	for _, dir := range []string{"/run/netns", "/run/containerd", "/var/log/pods", "/var/log/containers", "/var/lib/kubelet", "/var/lib/cni"} {
		err = errors.Join(err, os.MkdirAll(dir, 0o755), mount("lab", dir, "tmpfs", 0))
	}
	// Volumes that a node mounts must appear in containers: propagation, but
	// not beyond this namespace.
	err = errors.Join(err, mount("none", "/", "", unix.MS_REC|unix.MS_SHARED))
	return err
}

// prefix begins the names of state directories and of their cgroups.
const prefix = "podkey-lab-"

// state makes the directory of a lab's files, on a disk and not in memory.
func state() (dir string, unlock func(), err error) {
	if err := sweep(); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp("", prefix); err != nil {
		return "", nil, err
	}
	unlock, err = lock(dir)
	return dir, unlock, err
}

// sweep removes what labs left that have ended. A lock tells which these are.
func sweep() error {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range old {
		if unlock, lockErr := lock(dir); lockErr == nil {
			err = errors.Join(err, removeCgroups(filepath.Base(dir)), os.RemoveAll(dir))
			unlock()
		}
	}
	if err != nil {
		return fmt.Errorf("remove what an earlier lab left: %w", err)
	}
	return nil
}

// lock takes the lock of a state directory, which its process holds as long
// as it lives.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
