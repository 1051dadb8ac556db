package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// The person at the browser: a client that reads pages, fills in the forms
// that a person would fill in, and presses the first button. It knows HTML
// without scripts, nothing of Podkey's pages, and so shows that they work for
// somebody who has no more than that.

// credentials is what the person knows. The operator's file has these members
// too.
type credentials struct {
	UserName     string `json:"userName"`
	UserPassword string `json:"userPassword"`
}

// signInMain is `acceptance sign-in`: it runs below `podkey exec`, as az's
// browser or beside az, and so reaches the pages as any browser there would.
func signInMain(args []string) int {
	fl := flag.NewFlagSet("sign-in", flag.ExitOnError)
	file := fl.String("credentials", "", "JSON file with userName and userPassword")
	code := fl.String("code", "", "device code to enter")
	fl.Parse(args)
	if err := signInAt(fl.Arg(0), *file, *code); err != nil {
		fmt.Fprintln(os.Stderr, "sign-in:", err)
		return 1
	}
	return 0
}

func signInAt(page, file, code string) error {
	var c credentials
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	// As in every browser, names below localhost are this machine.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix(host, ".localhost") {
			addr = net.JoinHostPort("127.0.0.1", port)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	p := person{
		credentials: c, code: code,
		http: &http.Client{Jar: jar, Timeout: 30 * time.Second, Transport: transport},
	}
	return p.visit(page)
}

// person is somebody at a browser, without scripts.
type person struct {
	credentials
	code string // to be entered where a page asks for one
	http *http.Client

	gave []string // what was already filled in
}

// visit opens a page and goes on until a page asks for nothing more.
func (p *person) visit(page string) error {
	resp, err := p.http.Get(page)
	for range 8 {
		if err != nil {
			return err
		}
		body, rerr := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if rerr != nil {
			return rerr
		}
		here := resp.Request.URL
		if host := here.Hostname(); host == "localhost" || host == "127.0.0.1" {
			return nil // back at az
		}
		if resp.StatusCode >= 400 {
			return fmt.Errorf("%s: status %d: %s", here.Path, resp.StatusCode, visible(body))
		}
		f, ferr := findForm(body)
		if ferr != nil {
			return ferr
		}
		if f == nil {
			if p.gave == nil {
				return fmt.Errorf("%s asks for nothing: %s", here.Path, visible(body))
			}
			return nil
		}
		if resp, err = p.send(here, f); errors.Is(err, errAskedAgain) {
			return fmt.Errorf("%s: %w: %s", here.Path, err, visible(body))
		}
	}
	return errors.New("more pages than a sign-in has")
}

var errAskedAgain = errors.New("the page asks again for what it was given")

// send fills a form in and submits it.
func (p *person) send(here *url.URL, f *form) (*http.Response, error) {
	values := url.Values{}
	for _, in := range f.inputs {
		switch {
		case in.kind == "hidden":
			values.Set(in.name, in.value)
			continue
		case in.kind == "password":
			values.Set(in.name, p.UserPassword)
		case in.kind == "checkbox" || in.kind == "radio":
			continue
		case p.code != "" && strings.Contains(strings.ToLower(in.name), "code"):
			values.Set(in.name, p.code)
		default:
			values.Set(in.name, p.UserName)
		}
		if in.kind == "password" || strings.Contains(strings.ToLower(in.name), "code") {
			if slices.Contains(p.gave, in.name) {
				return nil, errAskedAgain
			}
			p.gave = append(p.gave, in.name)
		}
	}
	if b := f.button(); b != nil && b.name != "" {
		values.Set(b.name, b.value)
	}
	if p.gave == nil {
		p.gave = []string{} // pressed a button
	}
	target, err := here.Parse(f.action)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(f.method, "post") {
		return p.http.PostForm(target.String(), values)
	}
	target.RawQuery = values.Encode()
	return p.http.Get(target.String())
}

// form is a form of a page.
type form struct {
	action, method string
	inputs         []input
	buttons        []input
}

type input struct{ kind, name, value, text string }

// declines are the buttons that a person who wants to sign in does not press.
var declines = regexp.MustCompile(`(?i)cancel|deny|decline|back|another|sign out|^no$`)

func (f *form) button() *input {
	for i := range f.buttons {
		if b := &f.buttons[i]; !declines.MatchString(b.text) && !declines.MatchString(b.value) {
			return b
		}
	}
	return nil
}

// findForm returns the form of a page that a person would fill in: the first
// one that leads on. nil if there is none.
func findForm(page []byte) (*form, error) {
	root, err := html.Parse(strings.NewReader(string(page)))
	if err != nil {
		return nil, err
	}
	var forms []*form
	var in func(n *html.Node, f *form)
	in = func(n *html.Node, f *form) {
		if n.Type == html.ElementNode {
			switch n.Data {
			case "form":
				f = &form{action: attr(n, "action"), method: attr(n, "method")}
				forms = append(forms, f)
			case "input", "button":
				if f == nil {
					break
				}
				i := input{kind: strings.ToLower(attr(n, "type")), name: attr(n, "name"), value: attr(n, "value"), text: strings.TrimSpace(textOf(n))}
				switch {
				case n.Data == "button" && (i.kind == "" || i.kind == "submit"), n.Data == "input" && i.kind == "submit":
					f.buttons = append(f.buttons, i)
				case n.Data == "input" && i.name != "":
					f.inputs = append(f.inputs, i)
				}
			}
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			in(c, f)
		}
	}
	in(root, nil)
	for _, f := range forms {
		if f.button() != nil {
			return f, nil
		}
	}
	return nil, nil
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func textOf(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	if n.Type == html.ElementNode && (n.Data == "style" || n.Data == "script") {
		return ""
	}
	var b strings.Builder
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		b.WriteString(textOf(c) + " ")
	}
	return b.String()
}

// visible is what a person would read on a page, for errors.
func visible(page []byte) string {
	root, err := html.Parse(strings.NewReader(string(page)))
	if err != nil {
		return err.Error()
	}
	s := strings.Join(strings.Fields(textOf(root)), " ")
	if len(s) > 400 {
		s = s[:400] + "…"
	}
	return s
}

// prompt is what az prints when it wants a device code to be entered
// somewhere.
var prompt = regexp.MustCompile(`open the page (https://\S+) and enter the code (\S+) to authenticate`)

// deviceSignIn waits for az to show its code and enters it.
func (s *step) deviceSignIn(ctx context.Context, who *signIn, stderr *watched) error {
	m := stderr.wait(ctx, prompt)
	if m == nil {
		return nil // az ended or is stuck: that is reported
	}
	args := []string{"exec", "--data", s.w.server.Data}
	if s.g.ownNames {
		args = append(args, "--own-names")
	}
	args = append(args, "--", s.w.exe, "sign-in", "-credentials", s.credentials(who), "-code", m[2], m[1])
	cmd := exec.CommandContext(ctx, s.w.server.Podkey, args...)
	cmd.Env = s.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the sign-in page: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

// browser is the environment that makes az start the person as its browser.
// The closing & tells Python not to wait for it.
func (s *step) browser(who *signIn) []string {
	return []string{
		"BROWSER=" + s.w.exe + " sign-in -credentials " + s.credentials(who) + " %s &",
	}
}

func (s *step) credentials(who *signIn) string {
	if who.credentials == "" {
		return s.w.server.Data + "/operator.json"
	}
	path, err := s.expand(who.credentials)
	if err != nil {
		return who.credentials
	}
	return path
}
