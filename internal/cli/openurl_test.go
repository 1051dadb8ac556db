package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's own program be podkey where exec names it as the
// program's browser.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == openURLName {
		// With time enough for any opener of the tests.
		open := openURLCommand(time.Minute)
		open.SetArgs(os.Args[2:])
		if open.Execute() != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// browsing is a command line beside a server, and a directory with an opener
// that writes down what it is asked to open. It stands for a desktop's
// xdg-open, which needs a desktop.
type browsing struct {
	*clusterRig
	opened string // file with the address, then the opener's environment
}

const opener = `#!/bin/sh
{ printf '%s\n' "$1"; env; } >"$OPENED.part" && mv "$OPENED.part" "$OPENED"
`

func newBrowsing(t *testing.T) *browsing {
	t.Helper()
	b := &browsing{clusterRig: newClusterRig(t)}
	bin := t.TempDir()
	for _, name := range []string{"xdg-open", "open"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(opener), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.opened = filepath.Join(t.TempDir(), "opened")
	t.Setenv("OPENED", b.opened)
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	t.Setenv("WAYLAND_DISPLAY", "")
	t.Setenv("DISPLAY", ":7")
	t.Setenv("BROWSER", "")
	os.Unsetenv("BROWSER")
	t.Setenv("HTTPS_PROXY", "http://me:proxy-password@corporate.example:3128")
	t.Setenv("SSL_CERT_FILE", "")
	os.Unsetenv("SSL_CERT_FILE")
	t.Setenv("ALL_PROXY", "socks5://me:proxy-p@ss/word@corporate.example:1080")
	t.Setenv("HTTP_PROXY", "me:proxy-password@corporate.example:3128")
	return b
}

// exec runs a program of sh under exec, as az would run: with $URL as what it
// wants to open.
func (b *browsing) exec(url, script string) (status int, out, talk string) {
	b.t.Helper()
	b.t.Setenv("URL", url)
	var stdout, stderr bytes.Buffer
	status = Run(b.t.Context(), []string{"exec", "--data", b.data, "--", "sh", "-c", script}, IO{In: strings.NewReader(""), Out: &stdout, Err: &stderr})
	return status, stdout.String(), stderr.String()
}

// open does with BROWSER what Python's webbrowser does: it splits the command
// line as a shell would, and puts the address where %s is. If the command
// fails, the next browser is given the same address. It stands for Python
// itself, which the tests do without: only the acceptance tests need it.
const open = `eval "$(printf '%s' "$BROWSER" | sed 's|%s|"$URL"|')" || xdg-open "$URL"`

// wasOpened is the address that the opener was given, and its environment.
func (b *browsing) wasOpened() (url string, env map[string]string) {
	b.t.Helper()
	text, err := os.ReadFile(b.opened)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	os.Remove(b.opened)
	url, rest, _ := strings.Cut(string(text), "\n")
	env = map[string]string{}
	for line := range strings.SplitSeq(rest, "\n") {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	return url, env
}

func TestExecOpensOwnSignInPage(t *testing.T) {
	b := newBrowsing(t)
	login := b.api.Operator.Endpoints.Login
	const path = "/organizations/oauth2/v2.0/authorize?client_id=x&redirect_uri=http%3A%2F%2Flocalhost%3A41234&state=a%27%22%24(b)"
	for _, from := range []string{"https://login.microsoftonline.com", "https://LOGIN.microsoftonline.com:443", login} {
		status, _, talk := b.exec(from+path, open)
		url, env := b.wasOpened()
		if status != 0 || url != login+path {
			t.Errorf("%s: status %d, opened %q: %s", from, status, url, talk)
		}
		if !strings.Contains(talk, "the page in your browser is Podkey's, at "+login+"\n") || strings.Contains(talk, "state=") {
			t.Errorf("%s: said %q", from, talk)
		}
		// The browser is as it would be without us.
		for name, want := range map[string]string{
			"HTTPS_PROXY": "http://corporate.example:3128", "ALL_PROXY": "socks5://corporate.example:1080", "HTTP_PROXY": "corporate.example:3128", "DISPLAY": ":7",
		} {
			if env[name] != want {
				t.Errorf("the browser has %s=%q", name, env[name])
			}
		}
		for _, name := range []string{"BROWSER", "https_proxy", "SSL_CERT_FILE", "NODE_USE_ENV_PROXY", "AZURE_CONFIG_DIR"} {
			if v, ok := env[name]; ok && v != os.Getenv(name) {
				t.Errorf("the browser has %s=%q", name, v)
			}
		}
	}
}

// What cannot be opened is told; what has not ended by then is a browser.
func TestOpenPageTellsTheAddress(t *testing.T) {
	const login, page = "https://login.podkey.test", "https://login.podkey.test/x"
	bin := t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	try := func(script string, patience time.Duration) string {
		t.Helper()
		for _, name := range []string{"xdg-open", "open"} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		var talk bytes.Buffer
		openPage(&talk, login, page, os.Environ(), patience)
		return talk.String()
	}
	if talk := try("exit 1", time.Minute); !strings.Contains(talk, "no browser could be opened") || !strings.HasSuffix(talk, "\n  "+page+"\n") {
		t.Errorf("an opener that fails: %s", talk)
	}
	end := filepath.Join(t.TempDir(), "end") // a pipe: the opener waits until the test opens it
	if err := syscall.Mkfifo(end, 0o600); err != nil {
		t.Fatal(err)
	}
	if talk := try("exec cat '"+end+"'", 0); talk != "podkey: the page in your browser is Podkey's, at "+login+"\n" {
		t.Errorf("a browser: %s", talk)
	}
	w, err := os.OpenFile(end, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Setenv("PATH", t.TempDir())
	var talk bytes.Buffer
	if openPage(&talk, login, page, os.Environ(), time.Minute); !strings.HasSuffix(talk.String(), "\n  "+page+"\n") {
		t.Errorf("no opener: %s", talk.String())
	}
}

func TestAttackExecOpensNothingElse(t *testing.T) {
	b := newBrowsing(t)
	login := b.api.Operator.Endpoints.Login
	for _, url := range []string{
		"https://evil.example/", "http://login.microsoftonline.com/", "https://login.microsoftonline.com.evil.example/", "https://login.microsoftonline.com@evil.example/",
		"https://x:y@login.microsoftonline.com/", "https://login.microsoftonline.com:8443/", "https://login.microsoftonline.com./", "https://login.microsoftonline.us/",
		"https://management.azure.com/", "file:///etc/passwd", "javascript:alert(1)", "--version", "-h", "login.microsoftonline.com", "//login.microsoftonline.com/",
		"https:login.microsoftonline.com", "https://login.microsoftonline.com\\@evil.example/", "https://login.microsoftonline.com\n.evil.example/", "", " " + login, login + ".evil.example/", "http" + strings.TrimPrefix(login, "https") + "/",
	} {
		status, _, talk := b.exec(url, open)
		if opened, _ := b.wasOpened(); opened != "" {
			t.Errorf("%q: opened %q", url, opened)
		}
		if status != 0 || !strings.Contains(talk, " not opened: ") && !strings.Contains(talk, "malformed") {
			t.Errorf("%q: status %d, said %q", url, status, talk)
		}
	}
	// Nor is anything opened when the plan has gone, or is none.
	gone := `f=$(printf '%s' "$BROWSER" | cut -d' ' -f3); `
	for what, before := range map[string]string{"gone": `rm "$f"; `, "empty": `: >"$f"; `, "another": `echo '{"login":"http://evil.example"}' >"$f"; `} {
		status, _, talk := b.exec("https://login.microsoftonline.com/", gone+before+open)
		if opened, _ := b.wasOpened(); opened != "" || status != 0 || !strings.Contains(talk, "the page is not opened: ") {
			t.Errorf("%s: status %d, opened %q, said %q", what, status, opened, talk)
		}
	}
	// The command is of no use by itself, and not for people.
	var out bytes.Buffer
	status := Run(t.Context(), []string{openURLName, b.data + "/operator.json", "https://login.microsoftonline.com/"}, IO{Out: &out, Err: &out})
	if status != 0 || !strings.Contains(out.String(), "not one of podkey exec's") || strings.Contains(out.String(), b.api.Operator.ClientSecret) {
		t.Errorf("status %d", status)
	}
	if opened, _ := b.wasOpened(); opened != "" {
		t.Errorf("opened %q", opened)
	}
	if status := Run(t.Context(), []string{openURLName, "x"}, IO{Out: &out, Err: &out}); status != 2 {
		t.Errorf("without an address: status %d", status)
	}
	out.Reset()
	if Run(t.Context(), []string{"--help"}, IO{Out: &out, Err: &out}); strings.Contains(out.String(), openURLName) {
		t.Error("the help has it")
	}
}

// A browser is named where there may be one, and where nobody has chosen.
func TestExecNamesABrowser(t *testing.T) {
	b := newBrowsing(t)
	show := func() string {
		t.Helper()
		status, out, talk := b.exec("", `printf '%s' "$BROWSER"; [ -z "$BROWSER" ] || for f in $BROWSER; do case $f in *.json) ls -l "$f" | cut -c1-10;; esac; done`)
		if status != 0 {
			t.Fatalf("status %d: %s", status, talk)
		}
		return out
	}
	if out := show(); !strings.Contains(out, " "+openURLName+" ") || !strings.Contains(out, "%s-rw-------") {
		t.Errorf("with a display: %q", out)
	}
	t.Setenv("BROWSER", "firefox")
	if out := show(); out != "firefox" {
		t.Errorf("with a choice: %q", out)
	}
	os.Unsetenv("BROWSER")
	for display, want := range map[string]bool{"": false, ":0": true} {
		for wayland, want2 := range map[string]bool{"": false, "wayland-0": true} {
			for system, always := range map[string]bool{"linux": false, "freebsd": false, "darwin": true} {
				if got := hasDisplay(system, map[string]string{"DISPLAY": display, "WAYLAND_DISPLAY": wayland}); got != (want || want2 || always) {
					t.Errorf("%s, %q, %q: %v", system, display, wayland, got)
				}
			}
		}
	}
	t.Setenv("DISPLAY", "")
	if out := show(); (out != "") != (runtime.GOOS == "darwin") {
		t.Errorf("without a display: %q", out)
	}
	for _, c := range []struct{ self, file, want string }{
		{"/usr/bin/podkey", "/tmp/p/b.json", "/usr/bin/podkey open-url /tmp/p/b.json %s"},
		{"/home/a b/podkey", "/tmp/$x/b.json", "'/home/a b/podkey' open-url '/tmp/$x/b.json' %s"},
		{"/home/a:b/podkey", "/tmp/p/b.json", ""},
		{"/home/a'b/podkey", "/tmp/p/b.json", ""},
		{"/home/%s/podkey", "/tmp/p/b.json", ""},
	} {
		if got, ok := browserCommand(c.self, c.file); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q", c.self, got)
		}
	}
}

// What exec takes away from a program for being a credential is not in a file
// that the program is told of either.
func TestAttackBrowserPlanHasNoCredentials(t *testing.T) {
	b := newBrowsing(t)
	source, err := os.ReadFile("../workload/removed.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`"([A-Z][A-Z0-9_]+)"`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
		t.Setenv(m[1], "a-credential")
	}
	if len(names) < 50 {
		t.Fatalf("%d names are removed", len(names))
	}
	t.Setenv("JAVA_TOOL_OPTIONS", "-Dhttps.proxyPassword=a-credential")
	status, plan, talk := b.exec("", `cat "$(printf '%s' "$BROWSER" | cut -d' ' -f3)"`)
	if status != 0 || !strings.Contains(plan, `"login":"https://`) || !strings.Contains(plan, `"https_proxy":`) || !strings.Contains(plan, `"JAVA_TOOL_OPTIONS":null`) {
		t.Fatalf("status %d, %s: %s", status, plan, talk)
	}
	for _, name := range names {
		if strings.Contains(plan, `"`+name+`"`) {
			t.Errorf("the file has %s", name)
		}
	}
	for _, secret := range []string{"a-credential", "proxy-p", "me:", "word"} {
		if strings.Contains(plan, secret) {
			t.Errorf("the file has %q: %s", secret, plan)
		}
	}
}
