package image

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// NonRoot is the user of Podkey's image: the number that distributions of
// minimal images agree on for "nobody in particular".
const NonRoot = "65532:65532"

// Roots are the public certificate authorities that an image starts with, in
// PEM: Mozilla's, as the Go project publishes them, without those that Mozilla
// trusts for some names or dates only, which a file cannot say. Taking them
// from a module makes the image the same on every machine.
func Roots() []byte {
	var buf bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// A write to a buffer does not fail.
			_ = pem.Encode(&buf, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return buf.Bytes()
}

// Base are the files that every image of one static program needs: the roots
// where programs look for them, names for the users, and a directory for
// temporary files.
func Base() []File {
	return []File{
		{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Data: Roots()},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnonroot:x:65532:\n")},
		{Path: "/tmp/", Mode: os.ModeSticky | 0o777},
	}
}

// Build compiles a Go package of the module at dir for linux, static and
// without the paths of this machine, and returns the program.
func Build(ctx context.Context, dir, pkg, arch string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "podkey-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s for %s: %w\n%s", pkg, arch, err, b)
	}
	return os.ReadFile(out)
}

// Program is an image of one static program that runs as nobody in
// particular. name is the program's file name.
func Program(arch, name string, program []byte) Image {
	return Image{
		OS: "linux", Arch: arch,
		Files:      append(Base(), File{Path: "/" + name, Mode: 0o755, Data: program}),
		Entrypoint: []string{"/" + name},
		User:       NonRoot,
	}
}
