package sts

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/web"
)

// The pages that a person's browser is shown. They are plain HTML that works
// without scripts. The one script there is presses the button of the page that
// hands a code to a program which wants it posted.

//go:embed pages
var pageFiles embed.FS

// parsePages reads the templates. They are part of the program: a mistake in
// one is our own.
func parsePages() *template.Template {
	return template.Must(template.ParseFS(pageFiles, "pages/*.html"))
}

// page is what the templates show. Each uses what it has a place for.
type page struct {
	Title   string
	Problem string   // what went wrong with the last try
	Lines   []string // paragraphs
	Where   string   // the host, by which a person can tell this page from another

	Action   string // where the form goes
	CSRF     string
	UserCode string // of the device that is being signed in
	Typed    string // user code to begin with

	Client      string // that asks, by name
	Resource    string // that it asks for
	UserName    string
	DisplayName string
	Passwords   bool
	Outside     *outside    // the outside identity provider
	Device      *devicePage // what to compare
	SignOut     bool        // a button to do so
	Fields      []field     // of the form that a program gets

	formTo string // an origin besides this one that forms may lead to
	script bool   // the page presses its button itself
}

type outside struct{ Name, URL string }

type devicePage struct{ Code, Remote, Time string }

type field struct{ Name, Value string }

// Names of the cookies. A cookie of the __Host- prefix is sent back only to
// the host that set it, over TLS, and no other host can plant one.
const (
	browserCookie = "__Host-podkey-session" // whoever has signed in, see session.Browser
	formCookie    = "__Host-podkey-form"    // ties forms to the browser that was shown them
)

// show answers with a page.
func (s *service) show(w http.ResponseWriter, r *http.Request, status int, name string, p *page) error {
	call := web.CallOf(r.Context())
	p.Where = call.Host
	var body bytes.Buffer
	if err := s.pages.ExecuteTemplate(&body, name, p); err != nil {
		return fmt.Errorf("render page %s: %w", name, err)
	}
	h := w.Header()
	policy := "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
	if p.formTo != "" {
		// Browsers hold the redirect after a form to the form's policy as well.
		policy += " " + p.formTo
	}
	if p.script {
		policy += "; script-src 'self'"
	}
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // the address has the client's state in it
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}

// pageFile serves a file that the pages refer to.
func pageFile(name, contentType string) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		b, err := pageFiles.ReadFile("pages/" + name)
		if err != nil {
			return err
		}
		h := w.Header()
		h["Cache-Control"] = cacheable
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(b)))
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(b)
		return nil
	}
}

// isPage reports whether a path is one that browsers are sent to, so that a
// refusal is for a person to read.
func isPage(path string) bool {
	path = strings.ToLower(path)
	for _, end := range []string{"/authorize", "/logout", devicePath, "/deviceauth"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return strings.HasPrefix(path, "/signin/")
}

// failPage answers a browser for a request that cannot be gone on with.
func (s *service) failPage(w http.ResponseWriter, r *http.Request, e *Error) error {
	return s.show(w, r, e.Status, "message.html", &page{
		Title: "Sign-in is not possible",
		Lines: []string{
			fmt.Sprintf("AADSTS%d: %s", e.Code, e.Text),
			"Request ID: " + web.CallOf(r.Context()).ID,
		},
	})
}

// csrf returns the token of the forms that this browser is shown. It is
// derived from a random cookie that only this host can set and no script can
// read.
func (s *service) csrf(w http.ResponseWriter, r *http.Request) string {
	secret, ok := cookie(r, formCookie)
	if !ok || len(secret) != formSecretLen {
		secret = rand.Text()
		setCookie(w, formCookie, secret)
	}
	return csrfOf(secret)
}

// formSecretLen is the length of rand.Text.
const formSecretLen = 26

func csrfOf(secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("form"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// readOwnForm reads a form that must be one of our own pages', sent by the
// browser that was shown it.
func (s *service) readOwnForm(r *http.Request) (form, error) {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		return nil, errForeignForm().because("%v", err)
	}
	f, err := readForm(r)
	if err != nil {
		return nil, err
	}
	secret, ok := cookie(r, formCookie)
	if !ok || len(secret) != formSecretLen || !hmac.Equal([]byte(csrfOf(secret)), []byte(f["csrf"])) {
		return nil, errForeignForm().because("the form's token is not that of the browser's cookie")
	}
	return f, nil
}

func errForeignForm() *Error {
	return refuse(http.StatusForbidden, 165000, invalidRequest, "Invalid request: the form does not come from this page, or the page is too old. Go back, load it again and try once more. Cookies must be allowed.")
}

// cookie returns a cookie that the browser sent once.
func cookie(r *http.Request, name string) (value string, ok bool) {
	cs := r.CookiesNamed(name)
	if len(cs) != 1 {
		return "", false
	}
	return cs[0].Value, true
}

func setCookie(w http.ResponseWriter, name, value string) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func dropCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// signedIn finds who has signed in with this browser. A user that has been
// deleted or disabled, or whose password was changed, has not.
func (s *service) signedIn(r *http.Request) (*person, error) {
	text, ok := cookie(r, browserCookie)
	if !ok {
		return nil, nil
	}
	b, ok, err := s.Sessions.Browser(r.Context(), text)
	if err != nil || !ok {
		return nil, err
	}
	u, err := s.holder(r.Context(), b.TenantID, b.UserID, b.Stamp)
	if _, refused := err.(*Error); refused {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &person{u, session.Grant{
		TenantID: b.TenantID, UserID: b.UserID, Stamp: b.Stamp, Methods: b.Methods, SignedIn: b.SignedIn, SignInID: b.SignInID,
	}}, nil
}

// signIn makes the browser one in which the person has signed in.
func (s *service) signIn(w http.ResponseWriter, r *http.Request, p *person) error {
	before, _ := cookie(r, browserCookie)
	g := &p.grant
	text, err := s.Sessions.SignIn(r.Context(), session.Browser{
		TenantID: g.TenantID, UserID: g.UserID, Stamp: g.Stamp, Methods: g.Methods, SignedIn: g.SignedIn, SignInID: g.SignInID,
	}, before)
	if err != nil {
		return err
	}
	setCookie(w, browserCookie, text)
	return nil
}

// clock writes a time for a person.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
