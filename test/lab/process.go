package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs until it is stopped, with its output in a
// file.
type process struct {
	name string
	log  string // file
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start starts a program on a host of the lab: "" for the lab's own, or the
// name of a node.
func (c *Cluster) start(host, name string, args ...string) (*process, error) {
	label := name
	if host != "" {
		label = host + "-" + name
	}
	p := &process{name: label, log: filepath.Join(c.dir, "logs", label+".log"), done: make(chan struct{})}
	path := filepath.Join(c.bin, name)
	if _, err := os.Stat(path); err != nil {
		path = name // a program of the machine
	}
	p.cmd = exec.Command(path, args...)
	if host != "" {
		p.cmd = exec.Command("nsenter", append([]string{"--net=/run/netns/" + host, "--", path}, args...)...)
	}
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", label, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the process: with a request, and by force if it does not follow
// within the time.
func (p *process) stop(patience time.Duration) {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(patience):
	}
	p.kill()
}

// kill ends the process by force.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// tail is the end of what the process printed.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return p.name + " said:\n  " + strings.Join(lines[max(0, len(lines)-25):], "\n  ")
}

// wait asks until there is no error, the context ends, or one of the
// processes that are needed for it does.
func wait(ctx context.Context, what string, ask func(context.Context) error, needs ...*process) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		for _, p := range needs {
			select {
			case <-p.done:
				return fmt.Errorf("%s: %s has ended: %v\n%s", what, p.name, p.cmd.ProcessState, p.tail())
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
			for _, p := range needs {
				err = fmt.Errorf("%w\n%s", err, p.tail())
			}
			return err
		}
	}
}

// run runs a program of the machine or of the lab to its end.
func (c *Cluster) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	if path := filepath.Join(c.bin, name); fileExists(path) {
		name = path
	}
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// runAll runs command lines of words without blanks, one after another.
func (c *Cluster) runAll(ctx context.Context, lines ...string) error {
	var errs error
	for _, l := range lines {
		words := strings.Fields(l)
		if _, err := c.run(ctx, words[0], words[1:]...); err != nil {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}
