// Package demo tells the whole story on one machine: a server in a temporary
// directory, a vault made with the real Azure Go SDKs, an unmodified program
// that reads its secret as a workload, and then the same with the chain
// broken on purpose. Each step says what it proves and how long it took. A
// step that does not end as it must makes the demo fail.
package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server"
)

// Options of a demo. Out is required.
type Options struct {
	Out      io.Writer // where the story is told
	Podkey   string    // this program, to start `podkey run` with
	Workload []string  // the program that reads a secret, told by KEYVAULT_URL and SECRET_NAME
	Quiet    bool      // collect steps without telling
	Color    bool
}

// Step is one thing done, what it proves, and what came of it.
type Step struct {
	Title   string  `json:"title"`
	Proves  string  `json:"proves"`
	Result  string  `json:"result"`
	Seconds float64 `json:"seconds"`
}

// names used by the demo.
const (
	group     = "demo-group"
	identity  = "demo-identity"
	vault     = "demo-vault"
	secret    = "greeting"
	namespace = "demo"
	account   = "reader"
)

// Run tells the story and returns its steps.
func Run(ctx context.Context, o Options) ([]Step, error) {
	dir, err := os.MkdirTemp("", "podkey-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	t := &teller{o: o}
	defer t.waitForServer()
	defer cancel()
	err = t.story(ctx, dir)
	return t.steps, err
}

// teller carries the state from step to step.
type teller struct {
	o     Options
	steps []Step
	dir   string
	op    client.Operator
	az    *azure
	done  chan error // the server's end; nil before its start
	value string     // the secret
}

func (t *teller) waitForServer() {
	if t.done != nil {
		<-t.done
	}
}

func (t *teller) say(format string, args ...any) {
	if !t.o.Quiet {
		fmt.Fprintf(t.o.Out, format+"\n", args...)
	}
}

// step runs fn, which returns what came of it, and tells it.
func (t *teller) step(title, proves string, fn func() (string, error)) error {
	if err := t.startServerAlive(); err != nil {
		return err
	}
	start := time.Now()
	result, err := fn()
	took := time.Since(start)
	if err != nil {
		t.say("%s %s\n     %v", t.paint(31, "✗"), title, err)
		return fmt.Errorf("%s: %w", strings.ToLower(title[:1])+title[1:], err)
	}
	t.steps = append(t.steps, Step{title, proves, result, took.Seconds()})
	t.say("%s %2d  %-58s %8s", t.paint(32, "✓"), len(t.steps), title, took.Round(time.Millisecond))
	t.say("      %s", t.paint(2, "proves: "+proves))
	for line := range strings.SplitSeq(result, "\n") {
		t.say("      %s", line)
	}
	return nil
}

// startServerAlive reports a server that ended before the story did.
func (t *teller) startServerAlive() error {
	select {
	case err := <-t.done:
		t.done = nil
		return fmt.Errorf("the server stopped: %w", err)
	default:
		return nil
	}
}

func (t *teller) paint(code int, s string) string {
	if !t.o.Color {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, s)
}

func (t *teller) story(ctx context.Context, dir string) error {
	t.dir = dir
	t.say("Podkey: a pod's token opens a secret. Every check below is real.\n")
	begin := time.Now()
	if err := t.build(ctx); err != nil {
		return err
	}
	t.say("\nNow the chain is broken on purpose, one link at a time.\n")
	if err := t.breakChain(ctx); err != nil {
		return err
	}
	t.say("\nDone in %s. Nothing is left behind. Try it yourself:\n", time.Since(begin).Round(100*time.Millisecond))
	t.say("  podkey server &                                   # keeps its data in %s", "~/.local/share/podkey")
	t.say("  podkey exec -- az login --service-principal ...   # any Azure client, Azure's own names")
	t.say("  podkey run -n NS --service-account SA -- ./app    # any program, as that workload")
	return nil
}

// build makes everything that the secret needs and reads it.
func (t *teller) build(ctx context.Context) error {
	var issuer string
	subject := "system:serviceaccount:" + namespace + ":" + account
	t.value = "correct horse " + rand.Text()[:8]

	steps := []struct {
		title, proves string
		fn            func() (string, error)
	}{
		{"Start a server with its embedded store", "one process, no set-up: tenant, subscription, operator, keys and CA are made on the first start", func() (string, error) {
			if err := t.start(ctx); err != nil {
				return "", err
			}
			issuer = t.op.Endpoints.Issuer
			var err error
			t.az, err = newAzure(t.op)
			return "listening on " + t.op.Listen + ", issuer of the built-in cluster " + issuer, err
		}},
		{"Create a resource group", "armresources signs in with the operator's secret and finds Azure's management API", func() (string, error) {
			return t.az.group(ctx, group)
		}},
		{"Create a user-assigned managed identity", "armmsi: the identity gets its own service principal", func() (string, error) {
			return t.az.createIdentity(ctx, group, identity)
		}},
		{"Let the service account " + namespace + "/" + account + " act as it", "armmsi: a federated credential trusts one issuer, one subject, one audience; no secret exists", func() (string, error) {
			return t.az.trust(ctx, group, identity, issuer, subject)
		}},
		{"Create a key vault", "armkeyvault: a vault under role-based access control", func() (string, error) {
			return t.az.createVault(ctx, group, vault)
		}},
		{"Let the operator write secrets, the identity read them", "armauthorization: two role assignments at the vault's scope; even the operator had no right before", func() (string, error) {
			return t.az.assignRoles(ctx)
		}},
		{"Set a secret", "azsecrets: challenge, token for the vault, sealed write synced to disk", func() (string, error) {
			return t.az.setSecret(ctx, vault, secret, t.value)
		}},
		{"Run an unmodified program as the workload", "service-account token -> access token -> secret, through azidentity and azsecrets, with Azure's own names", func() (string, error) {
			out, err := t.workload(ctx)
			if err != nil {
				return "", err
			}
			if out != t.value {
				return "", fmt.Errorf("the program read %q, but the secret is %q", out, t.value)
			}
			return t.command() + "\nprinted: " + t.paint(1, out), nil
		}},
	}
	for _, s := range steps {
		if err := t.step(s.title, s.proves, s.fn); err != nil {
			return err
		}
	}
	return nil
}

// breakChain changes one link, shows the refusal and mends the link again.
func (t *teller) breakChain(ctx context.Context) error {
	issuer := t.op.Endpoints.Issuer
	subject := "system:serviceaccount:" + namespace + ":" + account
	mend := func() error {
		_, err := t.az.trust(ctx, group, identity, issuer, subject)
		return err
	}
	for _, b := range []struct {
		title, proves string
		brk           func() error
		want          string
	}{
		{"Wrong subject: the credential names another service account", "subjects are compared exactly", func() error {
			_, err := t.az.trust(ctx, group, identity, issuer, "system:serviceaccount:"+namespace+":writer")
			return err
		}, "AADSTS700213"},
		{"Wrong issuer: the closing slash is missing", "issuers are compared exactly, the last slash included", func() error {
			_, err := t.az.trust(ctx, group, identity, strings.TrimSuffix(issuer, "/"), subject)
			return err
		}, "AADSTS700211"},
		{"No role: the identity's assignment is deleted", "a good token alone opens nothing", func() error {
			if err := mend(); err != nil {
				return err
			}
			return t.az.unassign(ctx)
		}, "ForbiddenByRbac"},
	} {
		err := t.step(b.title, b.proves, func() (string, error) {
			if err := b.brk(); err != nil {
				return "", err
			}
			out, err := t.workload(ctx)
			if err == nil {
				return "", fmt.Errorf("the program read %q, but must have been refused", out)
			}
			refused, ok := errors.AsType[*workloadError](err)
			if !ok || !strings.Contains(refused.stderr, b.want) {
				return "", fmt.Errorf("expected a refusal with %s, got: %w", b.want, err)
			}
			return "refused: " + t.paint(33, refusal(refused.stderr, b.want)), nil
		})
		if err != nil {
			return err
		}
	}
	return t.step("Mend it: the role is assigned again", "changes take effect at once", func() (string, error) {
		if err := t.az.assign(ctx, t.az.principal, secretsUser); err != nil {
			return "", err
		}
		out, err := t.workload(ctx)
		if err != nil {
			return "", err
		}
		if out != t.value {
			return "", fmt.Errorf("the program read %q, but the secret is %q", out, t.value)
		}
		return "printed: " + t.paint(1, out), nil
	})
}

// start runs a server in this process until ctx ends.
func (t *teller) start(ctx context.Context) error {
	s, err := server.New(ctx, server.Config{Data: t.dir, Listen: "127.0.0.1:0"}, server.Deps{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	t.done = make(chan error, 1)
	go func() { t.done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
		t.op = s.Operator()
		return nil
	case err := <-t.done:
		t.done = nil
		return err
	}
}

// workloadError is the failure of the program that reads the secret.
type workloadError struct{ stderr string }

func (e *workloadError) Error() string { return strings.TrimSpace(e.stderr) }

// command is the workload's command line, for the reader.
func (t *teller) command() string {
	return fmt.Sprintf("$ podkey run -n %s --service-account %s -- %s", namespace, account, filepath.Base(t.o.Workload[0]))
}

// workload runs the program by `podkey run` and returns what it printed.
func (t *teller) workload(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	args := append([]string{"run", "--data", t.dir, "-n", namespace, "--service-account", account, "--client-id", t.az.clientID, "--"}, t.o.Workload...)
	cmd := exec.CommandContext(ctx, t.o.Podkey, args...)
	cmd.Env = append(os.Environ(), "KEYVAULT_URL=https://"+vault+".vault.azure.net", "SECRET_NAME="+secret)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return "", &workloadError{stderr.String()}
	}
	return strings.TrimSuffix(stdout.String(), "\n"), err
}

var (
	descriptions = regexp.MustCompile(`AADSTS\d+: [^"]*`)
	spaces       = regexp.MustCompile(`\s+`)
)

// refusal picks the telling sentence out of an SDK's error, which repeats the
// whole HTTP exchange.
func refusal(stderr, code string) string {
	for _, d := range descriptions.FindAllString(stderr, -1) {
		if strings.HasPrefix(d, code) {
			d, _, _ = strings.Cut(d, " Trace ID")
			d, _, _ = strings.Cut(d, `\r\n`)
			d, _, _ = strings.Cut(d, " Please check")
			return spaces.ReplaceAllString(d, " ")
		}
	}
	for line := range strings.SplitSeq(stderr, "\n") {
		if strings.Contains(line, `"message"`) {
			_, msg, _ := strings.Cut(line, `"message": "`)
			msg, _, _ = strings.Cut(msg, `\r\n`)
			return "403 " + code + ": " + strings.TrimRight(msg, `",`)
		}
	}
	return code
}
