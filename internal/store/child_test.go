package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// childEnv makes the test binary do something else than test: what a process
// of its own is needed for.
const childEnv = "PODKEY_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	role, dir := os.Getenv(childEnv), os.Getenv(childEnv+"_DIR")
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "write":
		err = childWrite(context.Background(), dir)
	case "rest":
		err = childRest(context.Background(), dir)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child returns a command that runs the test binary in a role.
func child(role, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+role, childEnv+"_DIR="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}
