package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/podkey/podkey/internal/demo"
)

func newDemo() *cobra.Command {
	var workload, format string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The whole story on this machine, in seconds: a pod's token opens a secret",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o := demo.Options{
				Out: cmd.OutOrStdout(), Podkey: self, Workload: []string{self, "demo", "workload"},
				Quiet: format == "json", Color: isTerminal(cmd.OutOrStdout()),
			}
			if workload != "" {
				o.Workload = []string{workload}
			}
			// A reader that goes away, as in `podkey demo | head`, must not end
			// this process before it has removed its temporary directory.
			broken := make(chan os.Signal, 1)
			signal.Notify(broken, syscall.SIGPIPE)
			defer signal.Stop(broken)
			steps, err := demo.Run(cmd.Context(), o)
			if format == "json" {
				if werr := writeJSON(cmd.OutOrStdout(), steps); err == nil {
					err = werr
				}
			}
			return err
		},
	}
	outputFlag(cmd, &format)
	cmd.Flags().StringVar(&workload, "workload", "", "program that reads the secret, told by KEYVAULT_URL and SECRET_NAME (default: one that is built in)")
	_ = cmd.MarkFlagFilename("workload")
	cmd.AddCommand(&cobra.Command{
		Use:    "workload",
		Short:  "Print the secret SECRET_NAME of the vault KEYVAULT_URL",
		Hidden: true, // the demo's own workload
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Workload(cmd.Context(), os.Getenv("KEYVAULT_URL"), os.Getenv("SECRET_NAME"), cmd.OutOrStdout())
		},
	})
	return cmd
}

// isTerminal reports whether w is a terminal that wants colours.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
