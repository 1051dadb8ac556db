package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/proxy"
	"github.com/podkey/podkey/internal/server"
	"github.com/podkey/podkey/internal/workload"
)

func newExec() *cobra.Command {
	var dir string
	var ownNames bool
	cmd := &cobra.Command{
		Use:   "exec [--data DIR] [--own-names] -- CMD...",
		Short: "Run a program that sees Azure's names and reaches Podkey",
		Long: `Run a program that sees Azure's names (login.microsoftonline.com,
management.azure.com, NAME.vault.azure.net) and reaches Podkey behind them: by a
CONNECT proxy on loopback and the variables that Azure's clients read, without
root, DNS or a change to the program. Any other host is refused, so nothing
meant for Podkey reaches Azure. docs/exec-and-run.md has the variables.`,
		Example: `podkey exec -- az account list`,
		Args:    commandArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := dataDir(dir)
			if err != nil {
				return err
			}
			c, err := client.Open(dir)
			if err != nil {
				return err
			}
			s := session{client: c, dataDir: dir, ownNames: ownNames, signsIn: true}
			return s.run(cmd, args, func(context.Context, *errgroup.Group, string) ([]string, error) { return nil, nil })
		},
	}
	cmd.Flags().SetInterspersed(false)
	dataFlag(cmd, &dir)
	cmd.Flags().BoolVar(&ownNames, "own-names", false, "let Podkey's own names through the proxy too, where they do not resolve")
	return cmd
}

// session is one program that runs behind a proxy of its own.
type session struct {
	client   *client.Client
	dataDir  string
	ownNames bool // the program will use Podkey's own names too
	signsIn  bool // a person may sign in to the program, with a browser
}

// run runs the program and returns its exit status as an error. prepare adds
// variables, and tasks that live as long as the program; it is given a
// private directory.
func (s *session) run(cmd *cobra.Command, args []string, prepare func(context.Context, *errgroup.Group, string) ([]string, error)) error {
	op := s.client.Operator
	tmp, err := os.MkdirTemp("", "podkey-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the proxy: %w", err)
	}

	// Signals are the program's affair: it is told, and ends or not. What is
	// under it ends when it has ended.
	base, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer cancel()
	g, ctx := errgroup.WithContext(base)
	domain := strings.TrimPrefix(op.Endpoints.Login, "https://login.")
	p := &proxy.Proxy{
		Allow: func(host string, port int) bool { return server.Serves(domain, host, port) },
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", op.Listen)
		},
	}
	g.Go(func() error { return p.Serve(ctx, ln) })

	code, err := s.child(cmd, ctx, args, tmp, ln.Addr().String(), domain, func() ([]string, error) { return prepare(ctx, g, tmp) })
	cancel()
	if werr := g.Wait(); err == nil {
		err = werr
	}
	if err == nil && code != 0 {
		return &exitError{code}
	}
	return err
}

func (s *session) child(cmd *cobra.Command, ctx context.Context, args []string, tmp, proxyAddr, domain string, prepare func() ([]string, error)) (int, error) {
	op := s.client.Operator
	own, err := os.ReadFile(op.CAFile)
	if err != nil {
		return 0, fmt.Errorf("read CA of the server: %w", err)
	}
	azure, err := os.ReadFile(op.AzureCAFile)
	if err != nil {
		return 0, fmt.Errorf("read CA of the server: %w", err)
	}
	o := workload.ExecOptions{
		Dir: filepath.Join(tmp, "trust"), AzureConfigDir: filepath.Join(s.dataDir, "azure-config"),
		Proxy: proxyAddr, CAs: [][]byte{own, azure}, Parent: os.Environ(),
	}
	if s.ownNames {
		o.OwnDomain = domain
		// az keeps the cloud that it was set to with its sign-ins: one that was
		// registered for own names must not follow it to Azure's names.
		o.AzureConfigDir += "-own-names"
	}
	env, err := workload.ExecEnv(o)
	if err != nil {
		return 0, err
	}
	if len(env.Unset) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "podkey: not passed on, as it would lead past Podkey: %s\n", strings.Join(env.Unset, ", "))
	}
	extra, err := prepare()
	if err != nil {
		return 0, err
	}
	env = env.With(extra...)
	if s.signsIn {
		browser, err := browserVariable(tmp, op.Endpoints.Login, env, os.Environ())
		if err != nil {
			return 0, err
		}
		env = env.With(browser...)
	}
	code, err := workload.Run(ctx, workload.Command{
		Args: args, Env: env.Apply(os.Environ()),
		Stdin: cmd.InOrStdin(), Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(),
	})
	if err != nil && (code == 126 || code == 127) {
		fmt.Fprintln(cmd.ErrOrStderr(), "podkey: "+oneLine(err))
		return code, nil
	}
	if errors.Is(err, context.Canceled) {
		return code, errors.New("the proxy stopped")
	}
	return code, err
}
