package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/client"
)

func newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Look at and rotate the keys that seal the store",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysRotate(), newKeysStatus())
	return cmd
}

func newKeysRotate() *cobra.Command {
	var dir, format string
	var kek, signing bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal with a new data key, or wrap the data keys with a new key-encryption key",
		Long: `Rotate the data key: new records are sealed under a new key at once, older ones
are rewritten in the background, and then the old key is dropped.

With --kek, the key-encryption key instead: a new key is made in its file, the
data keys are wrapped with it, and the old one is removed from the file. Keep a
copy of the new file: without it the store cannot be opened.

With --signing, the keys that sign tokens: new ones are used at once and every
token issued until now is refused. They rotate by themselves without that; this
is for when one may have become known. Programs that keep a token in memory get
a new one when they are started again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "rotateDataKey"
			switch {
			case kek:
				path = "rotateKek"
			case signing:
				path = "replaceSigningKeys"
			}
			return keyCommand(cmd, dir, format, func(ctx context.Context, c *client.Client, out any) error {
				return c.Admin(ctx, "POST", path, struct{}{}, out)
			})
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	cmd.Flags().BoolVar(&kek, "kek", false, "rotate the key-encryption key")
	cmd.Flags().BoolVar(&signing, "signing", false, "replace the keys that sign tokens; ends all tokens")
	cmd.MarkFlagsMutuallyExclusive("kek", "signing")
	return cmd
}

func newKeysStatus() *cobra.Command {
	var dir, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the keys in use, records that wait to be rewritten, and damaged records",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return keyCommand(cmd, dir, format, func(ctx context.Context, c *client.Client, out any) error {
				return c.Admin(ctx, "GET", "keys", nil, out)
			})
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	return cmd
}

// keyStatus is what the server says of its keys.
type keyStatus struct {
	KEK        string `json:"kek"`
	KEKPending bool   `json:"kekPending"`
	DataKeys   []struct {
		ID      string `json:"id"`
		Primary bool   `json:"primary"`
		Records int    `json:"records"`
	} `json:"dataKeys"`
	Records int      `json:"records"`
	Stale   int      `json:"stale"`
	Damaged []string `json:"damaged"`
}

func keyCommand(cmd *cobra.Command, dir, format string, call func(context.Context, *client.Client, any) error) error {
	if err := checkOutput(format); err != nil {
		return err
	}
	c, err := openClient(dir)
	if err != nil {
		return err
	}
	var st keyStatus
	if err := call(cmd.Context(), c, &st); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if format == "json" {
		return writeJSON(out, st)
	}
	pending := ""
	if st.KEKPending {
		pending = "  (its rotation is not finished)"
	}
	fmt.Fprintf(out, "key-encryption key  %s%s\n", st.KEK, pending)
	for _, k := range st.DataKeys {
		mark := ""
		if k.Primary {
			mark = ", seals new ones"
		}
		fmt.Fprintf(out, "data key            %s  %d records%s\n", k.ID, k.Records, mark)
	}
	fmt.Fprintf(out, "records             %d, of which %d wait to be rewritten\n", st.Records, st.Stale)
	for _, d := range st.Damaged {
		fmt.Fprintf(out, "damaged             %s\n", printable(d))
	}
	return nil
}

// openClient makes a client for the server of a data directory.
func openClient(dir string) (*client.Client, error) {
	d, err := dataDir(dir)
	if err != nil {
		return nil, err
	}
	return client.Open(d)
}
