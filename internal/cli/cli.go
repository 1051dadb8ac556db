// Package cli is the command line: one file per noun, each a thin skin that
// parses flags and calls one function elsewhere.
//
// Manners: standard output is data, standard error is talk; where there is
// data, --output json gives it to programs. Errors are one line, lower case,
// followed by hints that can be typed. Secrets are never in arguments.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// IO is the standard streams.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run runs the command line and returns the exit status: 0, 1 for a failure,
// 2 for a mistake in the arguments, or the status of the child program of
// exec and run.
func Run(ctx context.Context, args []string, std IO) int {
	root := newRoot(std)
	root.SetArgs(args)
	err := asUsage(root, args, root.ExecuteContext(ctx))
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	fmt.Fprintf(std.Err, "podkey: %s\n", oneLine(err))
	for _, h := range hints(err) {
		fmt.Fprintf(std.Err, "  %s\n", h)
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}

// asUsage turns cobra's own complaints, which have no type, into ours. Cobra
// has run nothing yet when it makes them.
func asUsage(root *cobra.Command, args []string, err error) error {
	if err == nil || !strings.HasPrefix(err.Error(), "unknown command ") && !strings.HasPrefix(err.Error(), "required flag(s) ") {
		return err
	}
	at, _, ferr := root.Find(args)
	if ferr != nil {
		at = root
	}
	return &usageError{err, "see: " + at.CommandPath() + " --help"}
}

// exitError carries a child's exit status out; nothing is printed for it.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// usageError is a mistake in the arguments.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
func (e *usageError) Hint() string  { return e.hint }

// hinted adds what to type next to an error.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }
func (e *hinted) Hint() string  { return e.hint }

// hints collects the hints of every error in the chain.
func hints(err error) []string {
	var hs []string
	for ; err != nil; err = errors.Unwrap(err) {
		if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
			hs = append(hs, h.Hint())
		}
	}
	return hs
}

func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimRight(err.Error(), "."), "\n", "; ")
}

func newRoot(std IO) *cobra.Command {
	root := &cobra.Command{
		Use:   "podkey",
		Short: "Key vault contents for Kubernetes pods, without a stored credential",
		Long: `Podkey gives a Kubernetes pod the contents of a key vault without any stored
credential. It speaks the protocols of Microsoft Entra ID, Azure Resource
Manager and Azure Key Vault, so that unmodified Azure clients work.

Start here:  podkey demo`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err, "see: " + cmd.CommandPath() + " --help"}
	})
	root.AddCommand(
		newServer(), newExec(), newRun(), newDemo(), newBootstrap(),
		newAzCloud(), newCorefile(), newCluster(), newUser(), newKeys(), newAudit(), newConfig(), newVersion(), newOpenURL(),
		newProxy(), newProxyInit(), newTrust(), newWebhook(),
		newInstall(), newUninstall(),
		newConnect(), newDisconnect(), newServiceAccount(), newJWKS(),
	)
	return root
}

// dataFlag adds --data.
func dataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", "", "data directory of the server (default $PODKEY_DATA, else the user's data directory)")
	_ = cmd.MarkFlagDirname("data")
}

// dataDir resolves --data: the flag, $PODKEY_DATA, or the user's data
// directory by the XDG rules.
func dataDir(flag string) (string, error) {
	for _, dir := range []string{flag, os.Getenv("PODKEY_DATA")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "podkey"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &usageError{errors.New("no data directory: there is no home directory to put it in"), "give --data DIR"}
	}
	return filepath.Join(home, ".local", "share", "podkey"), nil
}

// outputFlag adds --output.
func outputFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// checkOutput refuses unknown formats before any work is done.
func checkOutput(format string) error {
	if format != "text" && format != "json" {
		return &usageError{fmt.Errorf("unknown output format %q", format), "use --output text or --output json"}
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// noArgs and minArgs are cobra's checks with our kind of error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("unexpected argument %q", args[0]), "see: " + cmd.CommandPath() + " --help"}
	}
	return nil
}

func commandArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{errors.New("no command to run"), "for example: " + cmd.Example}
	}
	return nil
}
