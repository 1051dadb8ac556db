// Command image writes the container image of a static program, for several
// platforms, as an OCI archive. `make image` runs it, in the root of the
// repository, for Podkey and for the sample.
//
//	ctr -n k8s.io images import bin/podkey-image.tar
//	skopeo copy oci-archive:bin/podkey-image.tar docker://REGISTRY/podkey:TAG
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/image"
)

func main() {
	out := flag.String("o", "bin/podkey-image.tar", "the archive to write")
	ref := flag.String("ref", "localhost/podkey:dev", "the name of the image, with its tag")
	src := flag.String("src", "cmd/podkey", "the directory of the program; its name is the program's")
	arches := flag.String("arch", "amd64,arm64", "processors, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := write(ctx, *out, *ref, *src, strings.Split(*arches, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		stop()
		os.Exit(1)
	}
}

func write(ctx context.Context, out, ref, src string, arches []string) error {
	var images []image.Image
	for _, arch := range arches {
		start := time.Now()
		fmt.Fprintf(os.Stderr, "linux/%s: ", arch)
		program, err := image.Build(ctx, src, ".", arch)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%.1f MB, %.0f s\n", float64(len(program))/1e6, time.Since(start).Seconds())
		images = append(images, image.Program(arch, filepath.Base(src), program))
	}
	if err := image.WriteArchive(out, ref, images...); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", out, ref)
	return nil
}
