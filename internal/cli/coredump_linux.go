package cli

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noCoreDumps keeps the server's memory, which holds keys, from being written
// to a core file or read by other processes of the same user.
func noCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	return nil
}
