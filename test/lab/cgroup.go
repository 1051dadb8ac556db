package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// controllers are the cgroup hierarchies of this machine: one for each
// controller in version 1, which a hybrid machine has too, or one for all.
func controllers() (dirs []string, err error) {
	const base = "/sys/fs/cgroup"
	if _, err := os.Stat(base + "/cgroup.controllers"); err == nil {
		return []string{base}, nil
	}
	entries, err := os.ReadDir(base)
	for _, e := range entries {
		// Names such as cpu,cpuacct are links to the same hierarchy.
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(base, e.Name()))
		}
	}
	return dirs, err
}

// makeCgroup makes a cgroup in every hierarchy, so that what a kubelet makes
// is below a name that a later lab can remove.
func makeCgroup(name string) error {
	dirs, err := controllers()
	if err != nil {
		return err
	}
	for _, d := range dirs {
		at := d
		for part := range strings.SplitSeq(name, "/") {
			parent := at
			at = filepath.Join(at, part)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			// A new cpuset is empty, and nothing can run in it.
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				b, err := os.ReadFile(filepath.Join(parent, f))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err == nil {
					err = os.WriteFile(filepath.Join(at, f), b, 0o644)
				}
				if err != nil {
					return fmt.Errorf("cgroup %s: %w", at, err)
				}
			}
		}
	}
	return nil
}

// removeCgroups removes a cgroup and all below it from every hierarchy. No
// process may be in it.
func removeCgroups(name string) error {
	dirs, err := controllers()
	if err != nil {
		return err
	}
	for _, d := range dirs {
		var found []string
		err := filepath.WalkDir(filepath.Join(d, name), func(p string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && e.IsDir() {
				found = append(found, p)
			}
			return err
		})
		if err != nil {
			return err
		}
		slices.Reverse(found) // children before parents
		for _, p := range found {
			if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
