package test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/podkey/podkey/test/serve"
)

// TestCommandLine runs the scripts of testdata/script with the real programs.
// A script's data directory is $WORK/data; `serve` starts a server on it,
// `hangup` sends it SIGHUP, `stop` ends it.
func TestCommandLine(t *testing.T) {
	bin := filepath.Dir(program(t, "podkey"))
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("PODKEY_DATA", filepath.Join(e.WorkDir, "data"))
			e.Setenv("LISTEN", "127.0.0.1:0")
			e.Values[serverKey{}] = new(*serve.Server)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": func(ts *testscript.TestScript, neg bool, args []string) {
				p, err := serve.Start(program(t, "podkey"), ts.MkAbs("data"), ts.Getenv("LISTEN"), nil, args...)
				ts.Check(err)
				ts.Setenv("LISTEN", p.Operator.Listen)
				*ts.Value(serverKey{}).(**serve.Server) = p
				ts.Defer(func() { p.Stop(syscall.SIGTERM) })
			},
			"hangup": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check((*ts.Value(serverKey{}).(**serve.Server)).Signal(syscall.SIGHUP))
			},
			"stop": func(ts *testscript.TestScript, neg bool, args []string) {
				(*ts.Value(serverKey{}).(**serve.Server)).Stop(syscall.SIGTERM)
			},
		},
	})
}

// serverKey is where a script keeps its server.
type serverKey struct{}
