package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/podkey/podkey/internal/image"
)

func program(arch string) image.Image { return image.Program(arch, "app", []byte("\x7fELF of "+arch)) }

// unpack unpacks an archive into a directory.
func unpack(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestArchive reads an archive back by the layout that OCI defines.
func TestArchive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := image.WriteArchive(file, "localhost:5000/team/app:v1", program("amd64"), program("arm64")); err != nil {
		t.Fatal(err)
	}
	l, err := layout.ImageIndexFromPath(unpack(t, file))
	if err != nil {
		t.Fatal(err)
	}
	top, err := l.IndexManifest()
	if err != nil || len(top.Manifests) != 1 {
		t.Fatalf("%+v %v", top, err)
	}
	if a := top.Manifests[0].Annotations; a["io.containerd.image.name"] != "localhost:5000/team/app:v1" || a["org.opencontainers.image.ref.name"] != "v1" {
		t.Errorf("annotations %v", a)
	}
	index, err := l.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var arches []string
	for _, d := range m.Manifests {
		arches = append(arches, d.Platform.OS+"/"+d.Platform.Architecture)
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if c.Architecture != d.Platform.Architecture || c.Config.User != "65532:65532" || !slices.Equal(c.Config.Entrypoint, []string{"/app"}) || !c.Created.IsZero() {
			t.Errorf("configuration %+v", c)
		}
		layers, err := img.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		r, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		checkLayer(t, r, "\x7fELF of "+c.Architecture)
	}
	if !slices.Equal(arches, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("platforms %v", arches)
	}
}

func checkLayer(t *testing.T, r io.ReadCloser, want string) {
	t.Helper()
	defer r.Close()
	seen := map[string]*tar.Header{}
	var order []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d %q, time %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
		if h.Name == "app" {
			if b, _ := io.ReadAll(tr); string(b) != want {
				t.Errorf("the program is %q", b)
			}
		}
		seen[h.Name] = h
		order = append(order, h.Name)
	}
	if h := seen["app"]; h == nil || h.Mode != 0o755 {
		t.Errorf("program %+v", h)
	}
	if h := seen["tmp/"]; h == nil || h.Mode != 0o1777 {
		t.Errorf("/tmp %+v", h)
	}
	for _, name := range []string{"etc/", "etc/ssl/", "etc/ssl/certs/"} {
		if i, j := slices.Index(order, name), slices.Index(order, "etc/ssl/certs/ca-certificates.crt"); i < 0 || i > j {
			t.Errorf("%s is at %d, what is in it at %d", name, i, j)
		}
	}
}

func TestSameFilesGiveTheSameBytes(t *testing.T) {
	sum := func() (s [32]byte) {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := image.WriteArchive(file, "localhost/app:v1", program("amd64"), program("arm64")); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(b)
	}
	if a, b := sum(), sum(); a != b {
		t.Error("two archives of the same files differ")
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		ref   string
		files []image.File
		want  string
	}{
		"no tag":         {"localhost/app", nil, "is not a name with a tag"},
		"port, no tag":   {"localhost:5000/app", nil, "is not a name with a tag"},
		"no files":       {"a/b:c", nil, "needs a platform and a file"},
		"climbs":         {"a/b:c", []image.File{{Path: "/../etc/passwd"}}, "not a clean absolute path"},
		"relative":       {"a/b:c", []image.File{{Path: "etc"}}, "not a clean absolute path"},
		"root":           {"a/b:c", []image.File{{Path: "/"}}, "not a clean absolute path"},
		"twice":          {"a/b:c", []image.File{{Path: "/a"}, {Path: "/a"}}, "twice"},
		"file as parent": {"a/b:c", []image.File{{Path: "/a"}, {Path: "/a/b"}}, "no directory"},
	} {
		file := filepath.Join(t.TempDir(), "a.tar")
		err := image.WriteArchive(file, c.ref, image.Image{OS: "linux", Arch: "amd64", Files: c.files})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if left, _ := os.ReadDir(filepath.Dir(file)); len(left) > 0 {
			t.Errorf("%s: something is left: %v", name, left)
		}
	}
}

// TestRoots: a program without them trusts nobody.
func TestRoots(t *testing.T) {
	n := 0
	for rest := image.Roots(); len(rest) > 0; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			t.Fatalf("after %d roots comes %q", n, rest[:min(len(rest), 40)])
		}
	}
	if n < 80 {
		t.Errorf("%d roots", n)
	}
}

// TestBuild: the program is static, and tells nothing of this machine.
func TestBuild(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/app\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := image.Build(t.Context(), dir, ".", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte("\x7fELF")) || bytes.Contains(b, []byte("/lib/ld-")) || bytes.Contains(b, []byte(dir)) {
		t.Error("the program is no ELF file, not static, or has the directory in it")
	}
	if _, err := image.Build(t.Context(), dir, "./missing", runtime.GOARCH); err == nil {
		t.Error("a package that does not exist is built")
	}
}
