package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/text"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read the audit log",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuditTail())
	return cmd
}

func newAuditTail() *cobra.Command {
	var dir, format, file string
	var lines int
	var follow, denied bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the last decisions: who was allowed or refused what, and why",
		Example: `  podkey audit tail -n 20
  podkey audit tail --follow --denied`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			if lines < 0 {
				return &usageError{fmt.Errorf("--lines %d: must not be negative", lines), "use 0 for all"}
			}
			if file == "" {
				d, err := dataDir(dir)
				if err != nil {
					return err
				}
				file = filepath.Join(d, "audit.jsonl")
			}
			t := auditTail{path: file, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), json: format == "json", deniedOnly: denied}
			return t.run(cmd.Context(), lines, follow)
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	cmd.Flags().StringVar(&file, "file", "", "audit log to read (default audit.jsonl in the data directory)")
	cmd.Flags().IntVarP(&lines, "lines", "n", 10, "number of records to start with; 0 for all")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing as records are written")
	cmd.Flags().BoolVar(&denied, "denied", false, "only refusals")
	return cmd
}

// auditTail prints the end of an audit log.
type auditTail struct {
	path       string
	out, err   io.Writer
	json       bool
	deniedOnly bool
}

func (t *auditTail) run(ctx context.Context, lines int, follow bool) error {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &hinted{fmt.Errorf("no audit log at %s", t.path), "give --data DIR or --file FILE"}
	}
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer func() { f.Close() }()
	r := bufio.NewReader(f)
	var last []string // the newest lines, at most lines of them
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			if err := t.print(last); err != nil || !follow {
				return err
			}
			return t.follow(ctx, &f, r, line)
		}
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		if !t.wanted(line) {
			continue
		}
		last = append(last, line)
		if lines > 0 && len(last) > lines {
			last = last[1:]
		}
	}
}

// follow prints records as they are written, also to the new file when a
// rotation has moved this one away. partial is the beginning of a line whose
// end is still to come.
func (t *auditTail) follow(ctx context.Context, f **os.File, r *bufio.Reader, partial string) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var next *os.File // what is at the path now, to be read when the old file is at its end
	for {
		more, err := r.ReadString('\n')
		partial += more
		switch {
		case err == nil:
			if t.wanted(partial) {
				if err := t.print([]string{partial}); err != nil {
					return err
				}
			}
			partial = ""
			continue
		case err != io.EOF:
			return fmt.Errorf("read audit log: %w", err)
		}
		if next != nil {
			(*f).Close()
			*f, next, partial = next, nil, ""
			r.Reset(*f)
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		// Looked at before the old file is read to its end once more: whatever
		// was written to it before the rotation ended is printed.
		if next, err = t.rotated(*f); err != nil {
			return err
		}
	}
}

// rotated opens the file at the path if it is no longer f, and returns nil if
// it is, or if there is none yet.
func (t *auditTail) rotated(f *os.File) (*os.File, error) {
	was, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	is, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(was, is) {
		return nil, nil
	}
	next, err := os.Open(t.path)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	return next, nil
}

func (t *auditTail) wanted(line string) bool {
	return !t.deniedOnly || strings.Contains(line, `"decision":"deny"`)
}

// auditLine is what the text form shows of a record.
type auditLine struct {
	Time      time.Time `json:"time"`
	Plane     string    `json:"plane"`
	Operation string    `json:"operationName"`
	Resource  string    `json:"resourceId"`
	Decision  string    `json:"decision"`
	Reason    string    `json:"reason"`
	OID       string    `json:"oid"`
	AppID     string    `json:"appid"`
	Name      string    `json:"name"`
	Remote    string    `json:"callerIpAddress"`
}

func (t *auditTail) print(lines []string) error {
	for _, line := range lines {
		if t.json {
			if _, err := io.WriteString(t.out, line); err != nil {
				return err
			}
			continue
		}
		var a auditLine
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			fmt.Fprintf(t.err, "podkey: a line of %s is damaged and left out\n", t.path)
			continue
		}
		who := a.Name
		for _, alt := range []string{a.AppID, a.OID, "nobody"} {
			if who == "" {
				who = alt
			}
		}
		text := fmt.Sprintf("%s  %-5s  %-10s  %-22s  %s  by %s", a.Time.Local().Format("2006-01-02 15:04:05.000"), a.Decision, a.Plane, a.Operation, printable(a.Resource), printable(who))
		if a.Remote != "" {
			text += " from " + a.Remote
		}
		if a.Reason != "" {
			text += "\n" + strings.Repeat(" ", 25) + "because " + printable(a.Reason)
		}
		if _, err := fmt.Fprintln(t.out, text); err != nil {
			return err
		}
	}
	return nil
}

// printable keeps what callers chose from steering the reader's terminal.
func printable(s string) string { return text.Printable(s) }
