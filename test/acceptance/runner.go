package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/podkey/podkey/test/serve"
)

// world is one version of az against one server.
type world struct {
	version string // of az; of the SDK for the other clients
	bin     string // directory of az
	server  *serve.Server
	log     *os.File // the server's
	dir     string   // everything of this world is in it
	exe     string   // this program, for sign-ins
	python  string   // interpreter with the SDK
	modules string   // directory with node_modules
	root    string   // of the repository

	// index is az's own index of commands, made once and copied, because az
	// would spend seconds on it in each new directory of settings.
	index []byte
}

// values are those that every group starts with.
func (w *world) values() map[string]string {
	op := w.server.Operator
	_, domain, _ := strings.Cut(op.UserName, "@")
	return map[string]string{
		"domain": domain, "sub": "/subscriptions/" + op.SubscriptionID,
		"tenant": op.TenantID, "subscription": op.SubscriptionID,
		"operatorId": op.ClientID, "operatorSecret": op.ClientSecret, "operatorObjectId": op.ObjectID,
		"userName": op.UserName, "userPassword": op.UserPassword,
		"issuer": op.Endpoints.Issuer, "vaultSuffix": op.Endpoints.VaultSuffix,
		"data": w.server.Data, "podkey": w.server.Podkey, "python": w.python, "modules": w.modules, "root": w.root,
	}
}

// result is what became of a row.
type result struct {
	Group   string  `json:"group"`
	Version string  `json:"version"`
	Command string  `json:"command"`
	Result  string  `json:"result"` // one of the words below
	Why     string  `json:"why,omitempty"`
	Seconds float64 `json:"seconds"`
	detail  string
}

const (
	ok      = "ok"
	refused = "refused" // by az itself, as it should
	failed  = "FAILED"
	notRun  = "not run"
	missing = "missing" // not offered by Podkey yet
)

// runGroup runs the rows of a group in order.
func (w *world) runGroup(ctx context.Context, g *group, report func(result)) {
	st := &step{w: w, g: g, values: w.values(), dir: filepath.Join(w.dir, g.name)}
	st.values["work"] = st.dir
	maps.Copy(st.values, g.values)
	err := errors.Join(os.MkdirAll(filepath.Join(st.dir, "home"), 0o700), os.MkdirAll(filepath.Join(st.dir, "azure"), 0o700))
	if err == nil && w.index != nil && g.client == "" {
		err = os.WriteFile(filepath.Join(st.dir, "azure", "commandIndex.json"), w.index, 0o600)
	}
	for i := range g.rows {
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			report(result{Group: g.name, Version: w.version, Command: g.rows[i].title(), Result: notRun, Why: err.Error()})
			continue
		}
		report(st.run(ctx, &g.rows[i]))
	}
}

// title is what the table shows: the command without its values.
func (r *row) title() string {
	switch {
	case r.name != "":
		return r.name
	case r.az != "":
		return "az " + strings.Join(strings.Fields(strings.ReplaceAll(r.az, "\\\n", " ")), " ")
	case r.podkey != "":
		return "podkey " + r.podkey
	}
	return strings.Join(strings.Fields(r.sh), " ")
}

// step is a group on its way.
type step struct {
	w      *world
	g      *group
	values map[string]string
	dir    string
}

func (s *step) expand(t string) (string, error) { return expand(t, s.values) }

func (s *step) run(ctx context.Context, r *row) result {
	res := result{Group: s.g.name, Version: s.w.version, Command: r.title(), Result: ok}
	if r.missing != "" {
		res.Result, res.Why = missing, r.missing
		return res
	}
	start := time.Now()
	err := s.try(ctx, r, &res)
	res.Seconds = time.Since(start).Seconds()
	clean := redactor{s.values}
	if err != nil {
		res.Result, res.Why = failed, clean.clean(err.Error())
		if errors.Is(err, errMissing) {
			res.Result = notRun
		}
	}
	res.detail = clean.clean(res.detail)
	return res
}

func (s *step) try(ctx context.Context, r *row, res *result) error {
	for name, content := range r.files {
		content, err := s.expand(content)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	if r.do != nil {
		return r.do(s)
	}
	want := *r
	for i := range r.cannot {
		c := &r.cannot[i]
		if s.g.client != "" || !c.appliesTo(s.w.version) {
			continue
		}
		if err := s.check(ctx, &row{az: r.az, sh: r.sh, env: r.env, exit: c.exit, err: c.err, within: r.within}, res); err != nil {
			return err
		}
		res.Result, res.Why = refused, c.why
		if c.instead == "" {
			return nil
		}
		want.az, want.sh = c.instead, ""
		res.Why += "; ran instead: az " + c.instead
	}
	return s.check(ctx, &want, res)
}

// check runs a command and holds it against what is expected.
func (s *step) check(ctx context.Context, r *row, res *result) error {
	within := r.within
	if within == 0 {
		within = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd, err := s.command(ctx, r)
	if err != nil {
		return err
	}
	var stdout bytes.Buffer
	stderr := &watched{}
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	person := make(chan error, 1)
	if r.signIn != nil && r.signIn.how == "device" {
		go func() {
			err := s.deviceSignIn(ctx, r.signIn, stderr)
			if err != nil {
				cancel() // az would wait for the person for 15 minutes
			}
			person <- err
		}()
	} else {
		person <- nil
	}
	err = cmd.Run()
	stderr.close()
	if perr := <-person; perr != nil {
		return perr
	}
	res.detail = tail("stdout", stdout.String()) + tail("stderr", stderr.String())
	if ctx.Err() != nil {
		return fmt.Errorf("did not end within %v", within)
	}
	if cmd.ProcessState == nil {
		return err
	}
	if exit := cmd.ProcessState.ExitCode(); exit != r.exit {
		return fmt.Errorf("exit status %d, not %d: %s", exit, r.exit, lastWords(stderr.String()))
	}
	if r.err != "" {
		re, err := regexp.Compile("(?s)" + r.err)
		if err != nil {
			return err
		}
		if !re.MatchString(stderr.String()) {
			return fmt.Errorf("standard error does not match %s: %s", r.err, lastWords(stderr.String()))
		}
	}
	o := output{text: stdout.String(), expand: s.expand}
	for _, c := range r.out {
		if err := c(o); err != nil {
			return err
		}
	}
	for name, path := range r.save {
		if path == "" {
			s.values[name] = strings.TrimRight(o.text, "\r\n")
			continue
		}
		v, err := o.at(path)
		if err != nil {
			return err
		}
		s.values[name] = plain(v)
	}
	return nil
}

// command makes the process for a row: under podkey exec or run, in the
// group's directory, with the group's settings of az.
func (s *step) command(ctx context.Context, r *row) (*exec.Cmd, error) {
	var args []string
	switch {
	case r.podkey != "":
		w, err := s.split(r.podkey)
		if err != nil {
			return nil, err
		}
		args = append(w, "--data", s.w.server.Data)
	default:
		args = []string{"exec", "--data", s.w.server.Data}
		if r.as != nil {
			args = []string{"run", "--data", s.w.server.Data, "-n", r.as.namespace, "--service-account", r.as.account}
			if r.as.managed {
				args = append(args, "--managed-identity")
			}
		}
		if s.g.ownNames {
			args = append(args, "--own-names")
		}
		// One directory per group instead of one per server, so that groups
		// can run side by side. Nothing else of the environment is changed.
		args = append(args, "--", "env", "AZURE_CONFIG_DIR="+filepath.Join(s.dir, "azure"))
		for _, v := range r.env {
			v, err := s.expand(v)
			if err != nil {
				return nil, err
			}
			args = append(args, v)
		}
		if r.sh != "" {
			script, err := s.expand(r.sh)
			if err != nil {
				return nil, err
			}
			args = append(args, "sh", "-e", "-c", script)
			break
		}
		w, err := s.split(r.az)
		if err != nil {
			return nil, err
		}
		args = append(append(args, "az"), w...)
	}
	cmd := exec.CommandContext(ctx, s.w.server.Podkey, args...)
	cmd.Dir = s.dir
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = s.environment()
	if r.signIn != nil && r.signIn.how == "browser" {
		cmd.Env = append(cmd.Env, s.browser(r.signIn)...)
	}
	return cmd, nil
}

func (s *step) split(line string) ([]string, error) {
	ws, err := words(line)
	if err != nil {
		return nil, err
	}
	for i := range ws {
		if ws[i], err = s.expand(ws[i]); err != nil {
			return nil, err
		}
	}
	return ws, nil
}

// environment is a plain one: nothing of the person's own az must show.
func (s *step) environment() []string {
	path := os.Getenv("PATH")
	if s.w.bin != "" {
		path = s.w.bin + string(os.PathListSeparator) + path
	}
	return []string{
		"PATH=" + path, "HOME=" + filepath.Join(s.dir, "home"), "LANG=C.UTF-8", "TMPDIR=" + os.TempDir(),
		"KUBECONFIG=" + filepath.Join(s.dir, "kubeconfig"),
		"AZURE_CORE_NO_COLOR=1", "PYTHONDONTWRITEBYTECODE=1",
	}
}

// watched is standard error that somebody reads while it is written.
type watched struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed and replaced at each write
	done bool
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake()
	return w.buf.Write(p)
}

func (w *watched) wake() {
	if w.more != nil {
		close(w.more)
		w.more = nil
	}
}

func (w *watched) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.wake()
}

// wait returns the first match of a pattern, nil if the writer ends without.
func (w *watched) wait(ctx context.Context, re *regexp.Regexp) []string {
	for {
		w.mu.Lock()
		m, done := re.FindStringSubmatch(w.buf.String()), w.done
		if w.more == nil {
			w.more = make(chan struct{})
		}
		more := w.more
		w.mu.Unlock()
		if m != nil || done {
			return m
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func lastWords(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "ERROR") {
			return l
		}
	}
	return lines[len(lines)-1]
}

func tail(name, s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	const most = 1500
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	var b strings.Builder
	for line := range strings.SplitSeq(s, "\n") {
		fmt.Fprintf(&b, "    %s: %s\n", name, line)
	}
	return b.String()
}

// work is a group in a world.
type work struct {
	w *world
	g *group
}

// runAll runs the work with a number of workers and returns the results in the
// order of the work.
func runAll(ctx context.Context, all []work, workers int, progress io.Writer) []result {
	results := make([][]result, len(all))
	next := make(chan int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				all[i].w.runGroup(ctx, all[i].g, func(r result) {
					mu.Lock()
					defer mu.Unlock()
					results[i] = append(results[i], r)
					printRow(progress, r)
				})
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	var flat []result
	for _, rs := range results {
		flat = append(flat, rs...)
	}
	return flat
}
