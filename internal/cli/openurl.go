package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/workload"
)

// A program under exec that signs a person in, such as az login, opens Azure's
// login name in the person's browser, which knows nothing of our proxy: the
// page would be the real one. So the program's browser is a command of ours,
// which opens the same page under Podkey's own login name. What the page gives
// is good under both names.

// openURLName is the command that opens a sign-in page. It is not for people.
const openURLName = "open-url"

// openPlan is what that command must know, in a file of the private directory.
type openPlan struct {
	Login string `json:"login"` // origin of the token service under its own name

	// Before has the variables that exec has set, and proxies that it has taken
	// away, as they were; null for those that were not there. The browser is
	// none of what runs under exec: with our proxy it would reach nothing else,
	// and asked to open an address it must not come back to us.
	//
	// Whatever runs under exec can read the file. So what exec takes away for
	// being a credential stays away from the browser too, which has no use for
	// it, and so does what may have a password in it, see [forBrowser].
	Before map[string]*string `json:"before"`
}

// forBrowser is what a browser is given of a variable's value; ok is false if
// it is not given the variable. Browsers ask the person for a proxy's
// password, and run no Java.
func forBrowser(name, value string) (left string, ok bool) {
	if name == "JAVA_TOOL_OPTIONS" {
		return "", false
	}
	if isProxy(name) {
		scheme := ""
		if before, after, ok := strings.Cut(value, "://"); ok {
			scheme, value = before+"://", after
		}
		value = scheme + value[strings.LastIndex(value, "@")+1:]
	}
	return value, true
}

// isProxy reports whether a variable names a proxy, or hosts to be reached
// without one.
func isProxy(name string) bool {
	switch strings.ToLower(name) {
	case "http_proxy", "https_proxy", "all_proxy", "no_proxy":
		return true
	}
	return false
}

// browserVariable returns the variable that makes the program's browser ours.
// There is none where the person has chosen a browser or has none: without a
// display, programs ask for a device code instead, which must stay so.
func browserVariable(dir, login string, env *workload.Env, parent []string) ([]string, error) {
	before := map[string]string{}
	for _, v := range parent {
		if name, value, ok := strings.Cut(v, "="); ok {
			before[name] = value
		}
	}
	if before["BROWSER"] != "" || !hasDisplay(runtime.GOOS, before) {
		return nil, nil
	}
	restored := []string{"BROWSER"}
	for _, v := range env.Set {
		name, _, _ := strings.Cut(v, "=")
		restored = append(restored, name)
	}
	for _, name := range env.Unset {
		if isProxy(name) {
			restored = append(restored, name)
		}
	}
	plan := openPlan{Login: login, Before: map[string]*string{}}
	for _, name := range restored {
		plan.Before[name] = nil
		if value, ok := before[name]; ok {
			if value, ok = forBrowser(name, value); ok {
				plan.Before[name] = &value
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find podkey's own program: %w", err)
	}
	file := filepath.Join(dir, "browser.json")
	command, ok := browserCommand(self, file)
	if !ok {
		return nil, nil
	}
	b, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, err
	}
	return []string{"BROWSER=" + command}, nil
}

// hasDisplay reports whether a person can be shown a browser.
func hasDisplay(system string, env map[string]string) bool {
	return system == "darwin" || env["DISPLAY"] != "" || env["WAYLAND_DISPLAY"] != ""
}

// browserCommand is a value of BROWSER in the notation of Python's webbrowser,
// and so of az: a list of command lines between colons, each split as a shell
// would, with %s for the address. ok is false for paths that it cannot say.
func browserCommand(self, file string) (command string, ok bool) {
	words := []string{self, openURLName, file}
	for i, w := range words {
		if strings.ContainsAny(w, "'%\n"+string(filepath.ListSeparator)) {
			return "", false
		}
		if strings.ContainsAny(w, " \t\"\\$`&|;<>()*?[]#~!{}") {
			words[i] = "'" + w + "'"
		}
	}
	return strings.Join(append(words, "%s"), " "), true
}

func newOpenURL() *cobra.Command { return openURLCommand(openPatience) }

func openURLCommand(patience time.Duration) *cobra.Command {
	return &cobra.Command{
		Use:    openURLName + " FILE URL",
		Short:  "Open a sign-in page of Podkey's in the person's browser",
		Hidden: true,

		DisableFlagParsing: true, // an address that looks like a flag is none
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &usageError{fmt.Errorf("%s takes a file and an address", openURLName), "podkey exec sets BROWSER to it; there is no other use"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			// A refusal is a success too. After a failure Python's webbrowser goes on
			// to the next browser that it finds, with the address as it was.
			talk := cmd.ErrOrStderr()
			if err := openURL(talk, args[0], args[1], patience); err != nil {
				fmt.Fprintf(talk, "podkey: %s\n", oneLine(err))
			}
			return nil
		},
	}
}

// openURL opens a page of the token service that the plan in file is about.
func openURL(talk io.Writer, file, address string, patience time.Duration) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the page is not opened: %w", err)
	}
	var plan openPlan
	if err := json.Unmarshal(b, &plan); err != nil || !strings.HasPrefix(plan.Login, "https://") {
		return errors.New("the page is not opened: the file is not one of podkey exec's")
	}
	page, err := ownPage(plan.Login, address)
	if err != nil {
		return err
	}
	openPage(talk, plan.Login, page, plan.environment(os.Environ()), patience)
	return nil
}

// ownPage is a page of the token service under its own name. Any other host is
// refused.
func ownPage(login, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("the address to be opened is malformed")
	}
	own := strings.TrimPrefix(login, "https://")
	switch {
	case u.Scheme != "https" || u.User != nil || u.Opaque != "":
	case strings.EqualFold(u.Host, "login.microsoftonline.com"), strings.EqualFold(u.Host, "login.microsoftonline.com:443"), strings.EqualFold(u.Host, own):
		u.Host = own
		return u.String(), nil
	}
	return "", fmt.Errorf("%q is not opened: under podkey exec only the sign-in page is, at %s", u.Scheme+"://"+u.Host, login)
}

// environment is what env was before exec changed it.
func (p *openPlan) environment(env []string) []string {
	var change workload.Env
	for name, value := range p.Before {
		if value == nil {
			change.Unset = append(change.Unset, name)
		} else {
			change.Set = append(change.Set, name+"="+*value)
		}
	}
	return change.Apply(env)
}

// openPatience is how long a program may take to say that it cannot open a
// page. Some start the browser and end, others are the browser.
const openPatience = 2 * time.Second

// openPage shows a page of login in the person's browser. If that fails within
// patience the person is told the address, and that is all: whoever asked would
// try to open the real one next.
func openPage(talk io.Writer, login, page string, env []string, patience time.Duration) {
	name := "xdg-open"
	if runtime.GOOS == "darwin" {
		name = "open"
	}
	opener := exec.Command(name, page)
	opener.Env = env
	opener.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the terminal's keys are not for a browser
	err := opener.Start()
	if err == nil {
		ended := make(chan error, 1)
		go func() { ended <- opener.Wait() }()
		select {
		case err = <-ended:
		case <-time.After(patience):
		}
	}
	if err != nil {
		fmt.Fprintf(talk, "podkey: no browser could be opened (%s: %s). Open this page yourself, on this machine:\n  %s\n", name, oneLine(err), page)
		return
	}
	fmt.Fprintf(talk, "podkey: the page in your browser is Podkey's, at %s\n", login)
}
