package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/bootstrap"
)

func newBootstrap() *cobra.Command {
	var dir, file, format string
	var check bool
	cmd := &cobra.Command{
		Use:   "bootstrap -f FILE",
		Short: "Make the server hold what a file declares: identities, vaults, secrets",
		Long: `Make the server hold what a file declares: tenants, resource groups,
applications, identities with their federated credentials, vaults with their
secrets, and role assignments. It may be run again: what is as declared is left
alone, and nothing undeclared is removed. docs/bootstrap.md describes the file.`,
		Example: `  podkey bootstrap -f shop.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			f, err := bootstrap.Read(file)
			if err != nil {
				return err
			}
			if check {
				fmt.Fprintln(cmd.ErrOrStderr(), "podkey: the declaration is valid")
				return nil
			}
			c, err := openClient(dir)
			if err != nil {
				return err
			}
			steps := []bootstrap.Step{}
			changed := 0
			err = bootstrap.Apply(cmd.Context(), c, f, func(s bootstrap.Step) {
				steps = append(steps, s)
				if s.Outcome != bootstrap.Unchanged {
					changed++
				}
				if format == "text" {
					fmt.Fprintf(cmd.OutOrStdout(), "%-10s %-22s %s\n", s.Outcome, s.Kind, s.Name)
				}
			})
			if format == "json" {
				if werr := writeJSON(cmd.OutOrStdout(), steps); err == nil {
					err = werr
				}
			}
			if err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "podkey: %d declared, %d changed\n", len(steps), changed)
			}
			return err
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	cmd.Flags().StringVarP(&file, "file", "f", "", "the declaration, YAML or JSON")
	cmd.Flags().BoolVar(&check, "check", false, "only check the declaration")
	_ = cmd.MarkFlagRequired("file")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml", "json")
	return cmd
}
