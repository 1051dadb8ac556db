package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// writeFile replaces a file in one step: a reader sees the old content or the
// new. Mode 0600. Nothing is synced, because nobody needs these files after
// the process has died.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
