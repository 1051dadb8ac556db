package workload

import (
	"fmt"
	"os"
)

// privateDir makes a directory that only this user can enter, or checks that
// an existing one is such. One that somebody else made beforehand, in a
// directory where anyone may write, is refused, as is a link to elsewhere.
func privateDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	switch {
	case !fi.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case fi.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("directory %s may be entered by others (mode %04o): chmod 700 %s", path, fi.Mode().Perm(), path)
	case !ownedByUs(fi):
		return fmt.Errorf("directory %s belongs to another user", path)
	}
	return nil
}
