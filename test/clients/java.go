package clients

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// Java installs the Azure SDK for Java as a pom.xml pins it, and returns the
// directory of its libraries.
func (in *Installer) Java(ctx context.Context, sample string) (string, error) {
	for _, program := range []string{"mvn", "javac"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", errors.New("missing on this machine: " + program + ": apt-get install maven default-jdk-headless")
		}
	}
	pom, err := os.ReadFile(filepath.Join(sample, "pom.xml"))
	if err != nil {
		return "", err
	}
	return in.once("java-"+digest(pom), func(tmp string) error {
		if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), pom, 0o644); err != nil {
			return err
		}
		return in.run(ctx, tmp, "mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory="+tmp)
	})
}
