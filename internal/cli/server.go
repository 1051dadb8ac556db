package cli

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/server"
)

// serverFlags are the flags that override the configuration file.
type serverFlags struct {
	config, logLevel, logFormat string
	c                           server.Config
}

func newServer() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the server: token service, management API, vaults",
		Long: `Run the server. The first start makes tenant, subscription, operator and keys,
and writes ca.pem and operator.json (mode 0600) into the data directory.`,
		Example: `  podkey server
  podkey server --data /var/lib/podkey --listen 0.0.0.0:8443 --config /etc/podkey.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.resolve(cmd)
			if err != nil {
				return err
			}
			log, err := f.logger(cmd)
			if err != nil {
				return err
			}
			return runServer(cmd, c, log)
		},
	}
	f.register(cmd)
	return cmd
}

// heapReserve is how many bytes the garbage collector counts as live that are
// not: never touched, they take no memory. A young server's heap is about
// 10 MiB and doubles many times a second under load, each time collected; the
// reserve lets it grow by as many bytes more before that. Unlike GOGC it is a
// constant: the heap of a server with a million secrets does not get four
// times as large.
const heapReserve = 16 << 20

func runServer(cmd *cobra.Command, c server.Config, log *slog.Logger) error {
	start := time.Now()
	ctx := cmd.Context()
	if err := noCoreDumps(); err != nil {
		return err
	}
	reserve := make([]byte, heapReserve)
	defer runtime.KeepAlive(reserve)
	s, err := server.New(ctx, c, server.Deps{Log: log})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-s.Ready():
	}
	op := s.Operator()
	fmt.Fprintf(cmd.ErrOrStderr(), "podkey: ready on https://%s after %s, data in %s, %s\n",
		op.Listen, time.Since(start).Round(time.Millisecond), c.Data, strings.TrimPrefix(op.Endpoints.Login, "https://"))
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case err := <-done:
			return err
		case <-hangup: // as log rotation sends it
			if err := s.ReopenAudit(); err != nil {
				log.Error("the audit log could not be opened anew, the old file stays in use", "error", err)
			} else {
				log.Info("the audit log was opened anew")
			}
		}
	}
}

func (f *serverFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	dataFlag(cmd, &f.c.Data)
	fl.StringVar(&f.config, "config", "", "YAML file with the whole configuration; flags override it")
	fl.StringVar(&f.c.Listen, "listen", "", "address to listen on (default 127.0.0.1:8443)")
	fl.StringVar(&f.c.Domain, "domain", "", "suffix of the server's own names, with port unless 443 (default podkey.localhost:PORT)")
	fl.StringVar(&f.c.KEK, "kek", "", "file of the key-encryption key (default kek.json in the data directory)")
	fl.StringSliceVar(&f.c.Etcd.Endpoints, "etcd-endpoints", nil, "https URLs of an external etcd; embedded without")
	fl.StringVar(&f.c.Etcd.CA, "etcd-ca", "", "PEM file of the CA of etcd's servers")
	fl.StringVar(&f.c.Etcd.Cert, "etcd-cert", "", "PEM file of the client certificate for etcd")
	fl.StringVar(&f.c.Etcd.Key, "etcd-key", "", "PEM file of its key")
	fl.StringVar(&f.c.Tokens.Algorithm, "token-algorithm", "", "RS256 to sign every token so (default ES256 for Podkey's own resources)")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	for flag, values := range map[string][]string{
		"log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"}, "token-algorithm": {"RS256"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// resolve reads the configuration file and lays the flags over it.
func (f *serverFlags) resolve(cmd *cobra.Command) (server.Config, error) {
	var c server.Config
	if f.config != "" {
		var err error
		if c, err = server.ReadConfig(f.config); err != nil {
			return c, err
		}
	}
	over := func(dst *string, v string) {
		if v != "" {
			*dst = v
		}
	}
	if f.c.Data != "" || c.Data == "" {
		dir, err := dataDir(f.c.Data)
		if err != nil {
			return c, err
		}
		c.Data = dir
	}
	over(&c.Listen, f.c.Listen)
	over(&c.Domain, f.c.Domain)
	over(&c.KEK, f.c.KEK)
	over(&c.Etcd.CA, f.c.Etcd.CA)
	over(&c.Etcd.Cert, f.c.Etcd.Cert)
	over(&c.Etcd.Key, f.c.Etcd.Key)
	over(&c.Tokens.Algorithm, f.c.Tokens.Algorithm)
	if len(f.c.Etcd.Endpoints) > 0 {
		c.Etcd.Endpoints = f.c.Etcd.Endpoints
	}
	if err := c.Validate(); err != nil {
		return c, &usageError{err, "see: " + cmd.CommandPath() + " --help"}
	}
	return c, nil
}

func (f *serverFlags) logger(cmd *cobra.Command) (*slog.Logger, error) {
	level, err := logLevel(f.logLevel)
	if err != nil {
		return nil, err
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), o)), nil
	}
	return nil, &usageError{fmt.Errorf("unknown log format %q", f.logFormat), "use text or json"}
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at a server's configuration",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var f serverFlags
	check := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration without starting anything",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := f.resolve(cmd); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "podkey: the configuration is valid")
			return nil
		},
	}
	f.register(check)
	cmd.AddCommand(check)
	return cmd
}
