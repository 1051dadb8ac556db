// Package clients installs the clients that other people wrote and that prove
// Podkey: az, the Azure SDKs for Python, JavaScript and Java, and a program with
// that for .NET. Each is installed once, into the user's cache, into a directory
// that appears whole under a name that says what is in it, or not at all.
package clients

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// PinnedAz is the release that runs the walkthroughs as they are printed:
// from 2.61.0 on, vaults are made for role-based access control, and their
// set-policy is refused by az itself.
const PinnedAz = "2.60.0"

// Installer installs clients. Create with [New].
type Installer struct {
	cache string    // <user's cache>/podkey
	talk  io.Writer // progress
}

// New makes an installer that reports progress to talk.
func New(talk io.Writer) (*Installer, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the cache directory: %w; set HOME or XDG_CACHE_HOME", err)
	}
	in := &Installer{cache: filepath.Join(dir, "podkey"), talk: talk}
	return in, os.MkdirAll(in.cache, 0o755)
}

// Prerequisites checks what must be there before anything is installed, and
// names the packages of Debian and Ubuntu that are missing.
func Prerequisites(ctx context.Context, javascript bool) error {
	var missing []string
	if _, err := exec.LookPath("python3"); err != nil {
		missing = append(missing, "python3: apt-get install python3 python3-venv")
	} else if err := exec.CommandContext(ctx, "python3", "-c", "import venv, ensurepip").Run(); err != nil {
		missing = append(missing, "venv and pip of python3: apt-get install python3-venv")
	}
	if javascript {
		for _, p := range []string{"node", "npm"} {
			if _, err := exec.LookPath(p); err != nil {
				missing = append(missing, p+": apt-get install nodejs npm")
			}
		}
	}
	if missing != nil {
		return errors.New("missing on this machine:\n  " + strings.Join(missing, "\n  "))
	}
	return nil
}

// Az installs a version of az and returns the directory of its programs.
func (in *Installer) Az(ctx context.Context, version string) (string, error) {
	dir, err := in.venv(ctx, "az-"+version, func(python string) error {
		args := []string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "azure-cli==" + version}
		// An old release leaves most of its dependencies open, and newer ones
		// break it: what it worked with is written down beside this file.
		if lock := "az-" + version + ".txt"; locks(lock) != nil {
			path := filepath.Join(filepath.Dir(python), "constraints.txt")
			if err := os.WriteFile(path, locks(lock), 0o644); err != nil {
				return err
			}
			args = append(args, "--constraint", path)
		}
		return in.run(ctx, "", python, args...)
	})
	return filepath.Join(dir, "bin"), err
}

// NewestAz asks the package index for the newest az. python is of any
// environment made here.
func (in *Installer) NewestAz(ctx context.Context, python string) (string, error) {
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "index", "versions", "--disable-pip-version-check", "azure-cli")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask the package index for the newest az: %w\n%s", err, said.String())
	}
	m := regexp.MustCompile(`^azure-cli \(([0-9][0-9.]*)\)`).FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("ask the package index for the newest az: no version in %q", out)
	}
	return string(m[1]), nil
}

// Python installs the Azure SDK for Python as a requirements file pins it, and
// returns the interpreter.
func (in *Installer) Python(ctx context.Context, requirements string) (string, error) {
	b, err := os.ReadFile(requirements)
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(requirements)
	if err != nil {
		return "", err
	}
	dir, err := in.venv(ctx, "python-"+digest(b), func(python string) error {
		return in.run(ctx, "", python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", path)
	})
	return filepath.Join(dir, "bin", "python"), err
}

// JavaScript installs what a package-lock.json pins and returns the directory
// that holds node_modules.
func (in *Installer) JavaScript(ctx context.Context, sample string) (string, error) {
	return in.modules(ctx, sample, func(string) error { return nil })
}

// modules installs what a package-lock.json pins, and refuses what does not
// pass check.
func (in *Installer) modules(ctx context.Context, pinned string, check func(dir string) error) (string, error) {
	lock, err := os.ReadFile(filepath.Join(pinned, "package-lock.json"))
	if err != nil {
		return "", err
	}
	manifest, err := os.ReadFile(filepath.Join(pinned, "package.json"))
	if err != nil {
		return "", err
	}
	return in.once("node-"+digest(lock), func(tmp string) error {
		if err := errors.Join(
			os.WriteFile(filepath.Join(tmp, "package-lock.json"), lock, 0o644),
			os.WriteFile(filepath.Join(tmp, "package.json"), manifest, 0o644),
		); err != nil {
			return err
		}
		if err := in.run(ctx, tmp, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"); err != nil {
			return err
		}
		return check(tmp)
	})
}

// venv makes a virtual environment and fills it.
func (in *Installer) venv(ctx context.Context, name string, fill func(python string) error) (string, error) {
	return in.once(name, func(tmp string) error {
		if err := in.run(ctx, "", "python3", "-m", "venv", tmp); err != nil {
			return err
		}
		if err := fill(filepath.Join(tmp, "bin", "python")); err != nil {
			return err
		}
		return moveScripts(filepath.Join(tmp, "bin"), tmp, filepath.Join(in.cache, name))
	})
}

// moveScripts puts the final path into the scripts of a virtual environment,
// whose first lines name its interpreter.
func moveScripts(bin, from, to string) error {
	entries, err := os.ReadDir(bin)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(bin, e.Name())
		old, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if b := bytes.ReplaceAll(old, []byte(from), []byte(to)); !bytes.Equal(b, old) {
			if err := os.WriteFile(path, b, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// once makes the directory name in the cache unless it is there. It is filled
// under another name and renamed, so whoever finds it finds it whole.
func (in *Installer) once(name string, fill func(tmp string) error) (string, error) {
	dir := filepath.Join(in.cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fmt.Fprintf(in.talk, "installing %s into %s\n", name, in.cache)
	tmp, err := os.MkdirTemp(in.cache, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		return "", fmt.Errorf("install %s: %w", name, err)
	}
	err = os.Rename(tmp, dir)
	if errors.Is(err, fs.ErrExist) {
		err = nil // somebody else was faster
	}
	return dir, err
}

// run runs a step of an installation and passes its words on as progress.
func (in *Installer) run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said.String())
	}
	for s := bufio.NewScanner(&said); s.Scan(); {
		fmt.Fprintln(in.talk, "  "+s.Text())
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}
