//go:build e2e

// Package e2e proves Podkey in a real Kubernetes: the walkthroughs as their
// readers type them, the webhook's scenarios, and the faults. `make e2e` runs
// it; it needs root and Linux.
package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podkey/podkey/internal/image"
	"github.com/podkey/podkey/test/clients"
	"github.com/podkey/podkey/test/lab"
)

// preparedVar names the directory of what was built before the lab was
// entered.
const preparedVar = "PODKEY_E2E_PREPARED"

func TestMain(m *testing.M) {
	var dir string
	code := lab.Run(func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
		defer cancel()
		dir, err = prepare(ctx)
		return errors.Join(err, os.Setenv(preparedVar, dir))
	}, func() int { return inside(m) })
	if dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// prepare builds and installs, with the network that the lab does not have.
func prepare(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "podkey-e2e-")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/podkey/podkey").Output()
	if err != nil {
		return dir, fmt.Errorf("find the module github.com/podkey/podkey: %w", err)
	}
	root := strings.TrimSpace(string(out))
	var g errgroup.Group
	g.Go(func() error {
		_, err := lab.Binaries(ctx, os.Stderr)
		return err
	})
	g.Go(func() error { return images(ctx, root, dir) })
	g.Go(func() error {
		if err := clients.Prerequisites(ctx, true); err != nil {
			return err
		}
		in, err := clients.New(os.Stderr)
		if err != nil {
			return err
		}
		bin, err := in.Az(ctx, clients.PinnedAz)
		if err != nil {
			return err
		}
		python, err := in.Python(ctx, filepath.Join(root, "samples", "python", "requirements.txt"))
		if err != nil {
			return err
		}
		modules, err := in.JavaScript(ctx, filepath.Join(root, "samples", "javascript"))
		if err != nil {
			return err
		}
		libraries, err := in.Java(ctx, filepath.Join(root, "samples", "java"))
		if err != nil {
			return err
		}
		azmcp, err := in.DotNet(ctx, filepath.Join(root, "test", "clients", "dotnet"))
		if err != nil {
			return err
		}
		return errors.Join(
			os.Symlink(bin, filepath.Join(dir, "az")),
			os.Symlink(azmcp, filepath.Join(dir, "azmcp")),
			os.Symlink(libraries, filepath.Join(dir, "java")),
			os.Symlink(filepath.Dir(filepath.Dir(python)), filepath.Join(dir, "python")),
			os.Symlink(modules, filepath.Join(dir, "javascript")),
		)
	})
	return dir, g.Wait()
}

// Images of the suite.
const (
	podkeyRef  = "localhost/podkey:dev"
	sampleRef  = "localhost/read-secret:dev"
	loggerRef  = "localhost/secret-logger:e2e"
	webRef     = "localhost/secret-web:e2e"
	busyboxRef = "localhost/busybox:e2e"
)

// archives are the images of the suite, by the name of their archive.
var archives = map[string]string{
	"podkey": podkeyRef, "read-secret": sampleRef, "secret-logger": loggerRef, "secret-web": webRef, "busybox": busyboxRef,
}

// images builds the images, and podkey itself for the lab's host.
func images(ctx context.Context, root, dir string) error {
	shell, err := busybox()
	if err != nil {
		return err
	}
	all := map[string]image.Image{"busybox": shell}
	for name, src := range map[string]string{
		"podkey": "cmd/podkey", "read-secret": "samples/read-secret", "secret-logger": "samples/go/secret-logger", "secret-web": "samples/go/secret-web",
	} {
		program, err := image.Build(ctx, filepath.Join(root, src), ".", runtime.GOARCH)
		if err != nil {
			return err
		}
		if name == "podkey" {
			if err := os.WriteFile(filepath.Join(dir, name), program, 0o755); err != nil {
				return err
			}
		}
		all[name] = image.Program(runtime.GOARCH, name, program)
	}
	for name, m := range all {
		if err := image.WriteArchive(filepath.Join(dir, name+".tar"), archives[name], m); err != nil {
			return err
		}
	}
	return nil
}

// busybox is an image with a shell, in the place of the walkthroughs' alpine,
// which no registry can give here.
func busybox() (image.Image, error) {
	const path = "/bin/busybox"
	program, err := os.ReadFile(path)
	if err == nil {
		var f *elf.File
		if f, err = elf.NewFile(bytes.NewReader(program)); err == nil && f.Section(".interp") != nil {
			err = errors.New("it is not static")
		}
	}
	if err != nil {
		return image.Image{}, fmt.Errorf("%s: %w; install it with: apt-get install busybox-static", path, err)
	}
	m := image.Program(runtime.GOARCH, "bin/busybox", program)
	m.Entrypoint, m.Env, m.User = nil, []string{"PATH=/bin"}, ""
	for _, name := range []string{"sh", "env", "cat", "grep", "sleep", "ls", "wget", "nslookup", "id", "date", "echo", "true", "false"} {
		m.Files = append(m.Files, image.File{Path: "/bin/" + name, Link: "busybox"})
	}
	return m, nil
}
