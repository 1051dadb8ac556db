// Command podkey gives a Kubernetes pod the contents of a key vault without
// any stored credential. See the README.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/podkey/podkey/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
