// Command acceptance proves Podkey with clients that other people wrote: the
// real az, in the release that runs the walkthroughs as they are printed and
// in the newest, and programs with the Azure SDKs for Python and JavaScript.
// `make acceptance` runs it.
//
// It installs the clients into the user's cache, starts a server per version
// on a temporary data directory, runs each command under `podkey exec` and
// prints a table: result, version, seconds, command. A row that fails, fails
// the run. What an az cannot do by itself is a row too, which says why and
// checks that az refuses it.
//
// Commands are data: rows_*.go. Nothing here speaks to the server but the
// clients, `podkey` itself, and a person at a browser (signin.go).
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podkey/podkey/test/clients"
	"github.com/podkey/podkey/test/serve"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sign-in" {
		os.Exit(signInMain(os.Args[2:]))
	}
	var o options
	only := flag.String("only", "", "run only the groups whose name or commands this regular expression matches")
	flag.StringVar(&o.version, "version", "", "run only this version of az: "+clients.PinnedAz+", newest or another")
	flag.BoolVar(&o.keep, "keep", false, "keep the temporary directory, with the servers' logs")
	flag.StringVar(&o.output, "o", "text", "text or json")
	flag.StringVar(&o.podkey, "podkey", "", "use this podkey instead of building one")
	flag.IntVar(&o.workers, "workers", 2, "groups that run at the same time")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintln(os.Stderr, "acceptance: -only:", err)
		os.Exit(2)
	}
	if o.output != "text" && o.output != "json" || flag.NArg() > 0 || o.workers < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "acceptance:", err)
	}
	if err != nil || !good {
		stop()
		os.Exit(1)
	}
}

type options struct {
	only            *regexp.Regexp
	version, output string
	podkey          string
	keep            bool
	workers         int
}

func run(ctx context.Context, o options) (good bool, err error) {
	start := time.Now()
	groups := chosen(o.only)
	if len(groups) == 0 {
		return false, fmt.Errorf("no row matches %s", o.only)
	}
	if err := clients.Prerequisites(ctx, slices.ContainsFunc(groups, func(g *group) bool { return g.client == "javascript" })); err != nil {
		return false, err
	}
	root, err := moduleRoot()
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "podkey-acceptance-")
	if err != nil {
		return false, err
	}
	if o.keep {
		defer fmt.Fprintln(os.Stderr, "acceptance: kept", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	if o.podkey == "" {
		if o.podkey, err = serve.Build(root, dir); err != nil {
			return false, err
		}
	} else if o.podkey, err = filepath.Abs(o.podkey); err != nil {
		return false, err
	}

	worlds, err := prepare(ctx, o, root, dir, groups)
	defer func() {
		for _, w := range worlds {
			w.stop()
		}
	}()
	if err != nil {
		return false, err
	}
	var all []work
	for _, g := range groups {
		for i, w := range worlds {
			// The SDKs are one version: they run in the first world alone.
			if g.client == "" || i == 0 {
				all = append(all, work{w, g})
			}
		}
	}
	progress := io.Writer(os.Stdout)
	if o.output == "json" {
		progress = os.Stderr
	}
	results := runAll(ctx, all, o.workers, progress)
	good = summarise(progress, results, time.Since(start))
	if o.output == "json" {
		err = writeJSON(os.Stdout, results)
	}
	return good && ctx.Err() == nil, errors.Join(err, ctx.Err())
}

// chosen are the groups of which the name or a row matches. A group is run
// whole: its rows need each other.
func chosen(only *regexp.Regexp) []*group {
	var out []*group
	for _, g := range allGroups() {
		if only.MatchString(g.name) || slices.ContainsFunc(g.rows, func(r row) bool { return only.MatchString(r.title()) }) {
			out = append(out, g)
		}
	}
	return out
}

// prepare installs what the groups need and starts a server per version.
func prepare(ctx context.Context, o options, root, dir string, groups []*group) (worlds []*world, err error) {
	in, err := clients.New(os.Stderr)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	samples := filepath.Join(root, "samples")
	python, err := in.Python(ctx, filepath.Join(samples, "python", "requirements.txt"))
	if err != nil {
		return nil, err
	}
	versions := []string{clients.PinnedAz, "newest"}
	if o.version != "" {
		versions = []string{o.version}
	}
	for i, v := range versions {
		if v == "newest" {
			if versions[i], err = in.NewestAz(ctx, python); err != nil {
				return nil, err
			}
		}
	}
	versions = slices.Compact(versions) // the pinned one may be the newest that there is

	// Installing is slow, and busy with one processor each.
	bins := make([]string, len(versions))
	var modules string
	g, gctx := errgroup.WithContext(ctx)
	for i, v := range versions {
		g.Go(func() (err error) {
			bins[i], err = in.Az(gctx, v)
			return err
		})
	}
	if slices.ContainsFunc(groups, func(g *group) bool { return g.client == "javascript" }) {
		g.Go(func() (err error) {
			modules, err = in.JavaScript(gctx, filepath.Join(samples, "javascript"))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, v := range versions {
		w := &world{version: v, bin: bins[i], dir: filepath.Join(dir, v), exe: exe, python: python, modules: modules, root: root}
		if err := os.MkdirAll(w.dir, 0o700); err != nil {
			return worlds, err
		}
		if w.index, err = commandIndex(ctx, w); err != nil {
			return worlds, err
		}
		worlds = append(worlds, w)
		if w.log, err = os.Create(filepath.Join(w.dir, "server.log")); err != nil {
			return worlds, err
		}
		if w.server, err = serve.Start(o.podkey, filepath.Join(w.dir, "data"), "127.0.0.1:0", w.log, "--log-level", "debug"); err != nil {
			return worlds, err
		}
	}
	return worlds, nil
}

// stop ends the server.
func (w *world) stop() {
	if w.server != nil {
		w.server.Stop(syscall.SIGTERM)
	}
	if w.log != nil {
		_ = w.log.Close()
	}
}

// commandIndex lets az make its index of commands, and checks that it is the
// version that was asked for.
func commandIndex(ctx context.Context, w *world) ([]byte, error) {
	cfg := filepath.Join(w.dir, "index")
	if err := os.MkdirAll(cfg, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "az"), "version", "--query", `"azure-cli"`, "-o", "tsv")
	cmd.Env = []string{"PATH=" + w.bin + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "AZURE_CONFIG_DIR=" + cfg, "LANG=C.UTF-8", "AZURE_CORE_COLLECT_TELEMETRY=no"}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("az %s does not start: %w\n%s", w.version, err, said.String())
	}
	if got := firstLine(string(out)); got != w.version {
		return nil, fmt.Errorf("az %s says that it is %q", w.version, got)
	}
	index, err := os.ReadFile(filepath.Join(cfg, "commandIndex.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // then each group's first command makes it
	}
	return index, err
}

// moduleRoot is the repository's root: the program is run in its test module.
func moduleRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := wd; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "cmd", "podkey", "main.go")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", errors.New("run it in the repository, best by: make acceptance")
		}
	}
}
