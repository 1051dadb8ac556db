package workload_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what a test writes to the keyboard, the
// programs on the screen side get as a person's keys.
func terminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return keyboard, screen
}

// Ctrl-C goes to the whole foreground group. The child must get it once: many
// programs clean up at the first and give up at the second.
func TestTerminalInterruptsOnce(t *testing.T) {
	keyboard, screen := terminal(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = mode("runner", "PODKEY_TEST_CHILD=signals")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = screen, screen, screen
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	s := launch(t, cmd)
	s.out = bufio.NewReader(keyboard)

	s.line("ready")
	fmt.Fprint(keyboard, "\x03")
	s.line("^Cinterrupt")
	fmt.Fprint(keyboard, "\x1c")
	s.line(`^\quit`)
	// Comes to the runner alone, after the others, and so is passed on.
	s.signal(syscall.SIGTERM)
	s.line("terminated")
	s.line("interrupts: 1")
	if code := s.exit(); code != 5 {
		t.Errorf("exit code %d", code)
	}
}
