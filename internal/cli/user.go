package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/client"
)

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add people who can sign in, and look after them",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserAdd(), newUserList(), newUserSwitch("enable", true), newUserSwitch("disable", false), newUserDelete(), newUserPassword())
	return cmd
}

// userAdded is what user add prints.
type userAdded struct {
	client.User
	Role     string `json:"role,omitempty"`
	Scope    string `json:"scope,omitempty"`
	Password string `json:"password,omitempty"` // only if it was generated
}

func newUserAdd() *cobra.Command {
	var dir, format, display, role, scope, file string
	cmd := &cobra.Command{
		Use:   "add NAME@DOMAIN",
		Short: "Add a person, maybe with a role",
		Long: `Add a person to the operator's tenant. The password is read from a file, or
from standard input with --password-file -; without it one is generated, and
printed this once. The domain must be one of the tenant's: see operator.json.

With --role the person gets a role, at the operator's subscription unless
--scope names another place. To sign in: podkey exec -- az login`,
		Example: `  podkey user add kim@podkey.localhost --role Contributor
  podkey user add kim@podkey.localhost --role Owner --scope / --password-file pw.txt`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if scope != "" && role == "" {
				return &usageError{errors.New("--scope without --role"), "say which role: --role Reader"}
			}
			return userCommand(cmd, dir, format, func(ctx context.Context, c *client.Client) error {
				if display == "" {
					display, _, _ = strings.Cut(args[0], "@")
				}
				password, generated, err := newPassword(cmd, file)
				if err != nil {
					return err
				}
				out := userAdded{Role: role}
				roleID := ""
				if role != "" {
					if out.Scope = scope; scope == "" {
						out.Scope = "/subscriptions/" + c.Operator.SubscriptionID
					}
					// Looked up first: a mistake in it must not leave a person without role.
					if roleID, err = c.RoleNamed(ctx, out.Scope, role); err != nil {
						return err
					}
					if roleID == "" {
						return &usageError{fmt.Errorf("there is no role %q", role), "see: podkey exec -- az role definition list --query [].roleName"}
					}
				}
				if out.User, err = c.AddUser(ctx, args[0], display, password); err != nil {
					return err
				}
				if generated {
					out.Password = password
				}
				if roleID != "" {
					err = c.AssignRole(ctx, out.Scope, roleID, out.ID, "User")
				}
				if werr := writeUserAdded(cmd.OutOrStdout(), format, &out, err == nil); werr != nil {
					return werr
				}
				if err != nil {
					return &hinted{fmt.Errorf("%s was added, but has no role: %w", args[0], err), "podkey exec -- az role assignment create --assignee " + out.ID + " --role ROLE --scope SCOPE"}
				}
				return nil
			})
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	cmd.Flags().StringVar(&display, "display-name", "", "name for people (default the part before the @)")
	cmd.Flags().StringVar(&role, "role", "", "role to give, by name or GUID")
	cmd.Flags().StringVar(&scope, "scope", "", "where the role is given (default the operator's subscription; / is everything)")
	passwordFlag(cmd, &file)
	return cmd
}

func writeUserAdded(w io.Writer, format string, u *userAdded, assigned bool) error {
	if !assigned {
		u.Role, u.Scope = "", ""
	}
	if format == "json" {
		return writeJSON(w, u)
	}
	fmt.Fprintf(w, "user      %s\nid        %s\n", printable(u.UserPrincipalName), u.ID)
	if u.Role != "" {
		fmt.Fprintf(w, "role      %s at %s\n", printable(u.Role), printable(u.Scope))
	}
	if u.Password != "" {
		fmt.Fprintf(w, "password  %s\n", u.Password)
	}
	return nil
}

func newUserList() *cobra.Command {
	var dir, format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the people of the operator's tenant",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return userCommand(cmd, dir, format, func(ctx context.Context, c *client.Client) error {
				all, err := c.Users(ctx)
				if err != nil {
					return err
				}
				if format == "json" {
					return writeJSON(cmd.OutOrStdout(), all)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "USER\tNAME\tENABLED\tID")
				for _, u := range all {
					fmt.Fprintf(w, "%s\t%s\t%t\t%s\n", printable(u.UserPrincipalName), printable(u.DisplayName), u.AccountEnabled, u.ID)
				}
				return w.Flush()
			})
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	return cmd
}

// newUserSwitch is enable and disable.
func newUserSwitch(verb string, on bool) *cobra.Command {
	var dir string
	short := "Let a person sign in again"
	if !on {
		short = "Keep a person from signing in; tokens of theirs stop working at once"
	}
	cmd := &cobra.Command{
		Use:     verb + " NAME@DOMAIN",
		Short:   short,
		Example: "  podkey user " + verb + " kim@podkey.localhost",
		Args:    oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return userCommand(cmd, dir, "text", func(ctx context.Context, c *client.Client) error {
				if !on && strings.EqualFold(args[0], c.Operator.UserName) {
					fmt.Fprintln(cmd.ErrOrStderr(), "podkey: this is the operator's own account; the operator's client secret in operator.json still works")
				}
				return done(cmd, args[0], verb+"d", c.UpdateUser(ctx, args[0], map[string]any{"accountEnabled": on}))
			})
		},
	}
	dataFlag(cmd, &dir)
	return cmd
}

func newUserDelete() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "delete NAME@DOMAIN",
		Short:   "Remove a person; tokens of theirs stop working at once",
		Example: "  podkey user delete kim@podkey.localhost",
		Args:    oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return userCommand(cmd, dir, "text", func(ctx context.Context, c *client.Client) error {
				return done(cmd, args[0], "deleted", c.DeleteUser(ctx, args[0]))
			})
		},
	}
	dataFlag(cmd, &dir)
	return cmd
}

func newUserPassword() *cobra.Command {
	var dir, format, file string
	cmd := &cobra.Command{
		Use:   "set-password NAME@DOMAIN",
		Short: "Give a person a new password",
		Long: `Give a person a new password, read from a file or, with --password-file -, from
standard input; without it one is generated, and printed this once.`,
		Example: `  podkey user set-password kim@podkey.localhost`,
		Args:    oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return userCommand(cmd, dir, format, func(ctx context.Context, c *client.Client) error {
				password, generated, err := newPassword(cmd, file)
				if err != nil {
					return err
				}
				if err := done(cmd, args[0], "has a new password", c.UpdateUser(ctx, args[0], map[string]any{"passwordProfile": map[string]any{"password": password}})); err != nil {
					return err
				}
				switch {
				case !generated:
					password = ""
				case format == "text":
					fmt.Fprintf(cmd.OutOrStdout(), "password  %s\n", password)
				}
				if format == "json" {
					return writeJSON(cmd.OutOrStdout(), struct {
						UserPrincipalName string `json:"userPrincipalName"`
						Password          string `json:"password,omitempty"`
					}{args[0], password})
				}
				return nil
			})
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	passwordFlag(cmd, &file)
	return cmd
}

// userCommand does what the commands have in common.
func userCommand(cmd *cobra.Command, dir, format string, do func(context.Context, *client.Client) error) error {
	if err := checkOutput(format); err != nil {
		return err
	}
	c, err := openClient(dir)
	if err != nil {
		return err
	}
	return do(cmd.Context(), c)
}

// done says what has happened to whom.
func done(cmd *cobra.Command, name, what string, err error) error {
	switch {
	case client.IsNotFound(err):
		return &hinted{fmt.Errorf("there is no user %s", printable(name)), "see: podkey user list"}
	case err != nil:
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "podkey: %s %s\n", printable(name), what)
	return nil
}

// oneName takes one user name or id.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return &usageError{errors.New("one user name is expected"), "for example:" + firstLine(cmd.Example)}
	}
	return nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func passwordFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "password-file", "", "file with the password in its first line; - is standard input (default: one is generated)")
	_ = cmd.MarkFlagFilename("password-file")
}

// newPassword reads the password, or makes one of 125 bits or more.
func newPassword(cmd *cobra.Command, file string) (password string, generated bool, err error) {
	if file == "" {
		return rand.Text(), true, nil
	}
	const most = 4096
	r := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", false, fmt.Errorf("read the password: %w", err)
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return "", false, fmt.Errorf("read the password: %w", err)
	}
	password, _, _ = strings.Cut(string(b), "\n")
	password = strings.TrimSuffix(password, "\r")
	if password == "" || len(b) == most || !utf8.ValidString(password) {
		return "", false, &usageError{errors.New("the first line of the password file is empty, too long or not UTF-8"), "a password has between 8 and 256 bytes"}
	}
	return password, false, nil
}
