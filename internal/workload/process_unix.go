//go:build unix

package workload

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// inForeground reports whether our process group is the one that the keys of
// our terminal send their signals to.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false // no terminal
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// exitCodeOf is the code that a shell would report. The state is nil if the
// child could not be waited for, as when SIGCHLD is ignored.
func exitCodeOf(s *os.ProcessState) int {
	if s == nil {
		return 1
	}
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

func ownedByUs(fi fs.FileInfo) bool {
	s, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Getuid()
}
