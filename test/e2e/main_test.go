//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/podkey/podkey/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Run(m.Run)) }

func TestSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := lab.Start(ctx, lab.Options{Talk: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	out, err := c.Kubectl(ctx, "", "get", "all,nodes", "-A", "-o", "wide")
	fmt.Println(out, err)
}
