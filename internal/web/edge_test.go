package web_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// edge returns an edge with one plane that serves mux, and its log.
func edge(mux *web.Mux) (http.Handler, *bytes.Buffer) {
	var log bytes.Buffer
	plane := &web.Plane{Name: "test", Serve: mux.Serve, Fail: func(w http.ResponseWriter, r *http.Request, err error) {
		status, code := 500, "InternalError"
		if f, ok := fault.As(err); ok {
			status, code = f.Kind.Status(), f.Code
		}
		_ = web.WriteJSON(w, status, map[string]string{"code": code, "id": web.CallOf(r.Context()).ID})
	}}
	names := web.OwnNames("podkey.test")
	return &web.Edge{
		Log:   slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:   time.Now,
		Route: func(string) (*web.Plane, *web.Names, string) { return plane, names, "v" },
	}, &log
}

func do(h http.Handler, method, target string, edit func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", strings.NewReader("{}"))
	u, err := url.Parse("https://h" + target)
	if err != nil {
		panic(err)
	}
	r.URL, r.RequestURI = u, target
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPathsReachTheirRoutesWithoutRedirect(t *testing.T) {
	var mux web.Mux
	mux.Handle("/s/{name}", func(w http.ResponseWriter, r *http.Request) error {
		fmt.Fprintf(w, "%s", r.PathValue("name"))
		return nil
	})
	mux.Handle("POST /s/{name}/sign", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, "signed")
		return err
	})
	h, _ := edge(&mux)
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/s/a", 200, "a"},
		{"GET", "/s/a/", 200, "a"},
		{"GET", "//s///a//", 200, "a"},
		{"POST", "/s/a//sign", 200, "signed"},
		{"GET", "/s/a%2Fb", 200, "a/b"},
		{"GET", "/s/%2e%2e", 400, ""},
		{"GET", "/s/../s/a", 400, ""},
		{"GET", "/s/./a", 400, ""},
		{"GET", "/s/%2E", 400, ""},
		{"GET", "/t", 404, ""},
		{"GET", "/", 404, ""},
		{"GET", "/s/a/sign", 405, ""},
		{"GET", "/s/a?x=%zz", 400, ""},
		{"GET", "/s/a?x=1;y=2", 400, ""},
	} {
		w := do(h, c.method, c.path, nil)
		if w.Code != c.status || c.body != "" && w.Body.String() != c.body {
			t.Errorf("%s %s = %d %q, want %d %q", c.method, c.path, w.Code, w.Body, c.status, c.body)
		}
		if c.status >= 400 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: the refusal is not the plane's own: %q", c.method, c.path, w.Body)
		}
	}
}

func TestRepeatedHeadersAreRefused(t *testing.T) {
	var mux web.Mux
	mux.Handle("/", func(w http.ResponseWriter, r *http.Request) error { return nil })
	h, _ := edge(&mux)
	for _, name := range []string{"Authorization", "Content-Type", "If-Match", "X-HTTP-Method"} {
		w := do(h, "GET", "/", func(r *http.Request) { r.Header.Add(name, "a"); r.Header.Add(name, "b") })
		if w.Code != 400 {
			t.Errorf("two %s headers: %d, want 400", name, w.Code)
		}
	}
}

func TestPanicAndUnknownErrorsShowNothing(t *testing.T) {
	var mux web.Mux
	mux.Handle("/panic", func(http.ResponseWriter, *http.Request) error { panic("hunter2") })
	mux.Handle("/error", func(http.ResponseWriter, *http.Request) error { return errors.New("hunter2") })
	h, log := edge(&mux)
	for _, path := range []string{"/panic", "/error"} {
		log.Reset()
		w := do(h, "GET", path, nil)
		if w.Code != 500 || strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if !strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), `"level":"ERROR"`) {
			t.Errorf("%s: the cause is not in the log: %s", path, log)
		}
	}
}

func TestLogLineHasNoQueryBodyOrToken(t *testing.T) {
	var mux web.Mux
	mux.Handle("POST /x/{n}", func(w http.ResponseWriter, r *http.Request) error {
		web.CallOf(r.Context()).NotePrincipal(audit.Principal{ObjectID: "oid-1"})
		return fault.Conflict("Busy", "busy")
	})
	h, log := edge(&mux)
	do(h, "POST", "/x/canary1?sig=canary2", func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer canary3")
		r.Body = io.NopCloser(strings.NewReader("canary4"))
	})
	if strings.Contains(log.String(), "canary") {
		t.Errorf("the log line leaks: %s", log)
	}
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, log)
	}
	for k, want := range map[string]any{"pattern": "POST /x/{n}", "status": 409.0, "oid": "oid-1", "plane": "test", "level": "INFO"} {
		if line[k] != want {
			t.Errorf("%s = %v, want %v", k, line[k], want)
		}
	}
}

func TestOneLineForPeople(t *testing.T) {
	var mux web.Mux
	mux.Handle("/", func(w http.ResponseWriter, r *http.Request) error {
		web.CallOf(r.Context()).Logged()
		return fault.Conflict("Busy", "busy")
	})
	h, log := edge(&mux)
	do(h, "GET", "/", nil)
	if !strings.Contains(log.String(), `"level":"DEBUG"`) {
		t.Errorf("a second line at a level that people read: %s", log)
	}
}

func TestCorrelationIDIsTakenOnlyFromGUIDs(t *testing.T) {
	var got audit.Request
	var mux web.Mux
	mux.Handle("/", func(w http.ResponseWriter, r *http.Request) error { got = audit.RequestOf(r.Context()); return nil })
	h, _ := edge(&mux)
	id := uuid.NewString()
	for _, c := range []struct {
		header, value string
		taken         bool
	}{
		{"client-request-id", id, true},
		{"x-ms-client-request-id", strings.ToUpper(id), true},
		{"x-ms-client-request-id", "abc\x1b[31m", false},
		{"x-ms-client-request-id", strings.Repeat("a", 36), false},
	} {
		do(h, "GET", "/", func(r *http.Request) { r.Header.Set(c.header, c.value) })
		if (got.CorrelationID == id) != c.taken {
			t.Errorf("%s %q: correlation id %q", c.header, c.value, got.CorrelationID)
		}
		if _, err := uuid.Parse(got.ID); err != nil || got.ID == id {
			t.Errorf("request id %q", got.ID)
		}
	}
}

func TestDecodeJSON(t *testing.T) {
	type body struct{ A int }
	for _, c := range []struct {
		name, ct, body string
		status         int // 0 for success
	}{
		{"good", "application/json; charset=utf-8", `{"A":1,"b":2}`, 0},
		{"no type", "", `{"A":1}`, 0},
		{"form", "application/x-www-form-urlencoded", `A=1`, 415},
		{"latin1", "application/json; charset=latin1", `{"A":1}`, 415},
		{"bad type header", "application/json; charset", `{"A":1}`, 415},
		{"empty", "application/json", "  ", 400},
		{"cut", "application/json", `{"A":`, 400},
		{"two values", "application/json", `{"A":1}{"A":2}`, 400},
		{"wrong type", "application/json", `{"A":"canary"}`, 400},
		{"oversize", "application/json", `{"A":1,"b":"` + strings.Repeat("x", web.MaxBody) + `"}`, 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got body
			var mux web.Mux
			mux.Handle("/", func(w http.ResponseWriter, r *http.Request) error { return web.DecodeJSON(r, "Bad", &got) })
			h, log := edge(&mux)
			w := do(h, "POST", "/", func(r *http.Request) {
				r.Header.Set("Content-Type", c.ct)
				if c.ct == "" {
					r.Header.Del("Content-Type")
				}
				r.Body = io.NopCloser(strings.NewReader(c.body))
			})
			if c.status == 0 {
				if diff := cmp.Diff(body{1}, got); diff != "" || w.Code != 200 {
					t.Errorf("%d %s", w.Code, diff)
				}
			} else if w.Code != c.status {
				t.Errorf("status %d, want %d: %s", w.Code, c.status, w.Body)
			}
			if strings.Contains(log.String()+w.Body.String(), "canary") {
				t.Errorf("the value leaked: %s %s", log, w.Body)
			}
		})
	}
}

func TestBearer(t *testing.T) {
	for _, c := range []struct {
		headers []string
		token   string
	}{
		{nil, ""},
		{[]string{"Bearer abc"}, "abc"},
		{[]string{"bearer abc"}, "abc"},
		{[]string{"Basic abc"}, ""},
		{[]string{"Bearer"}, ""},
		{[]string{"Bearer "}, ""},
		{[]string{"Bearer a", "Bearer b"}, ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = c.headers
		got, err := web.Bearer(r)
		if got != c.token || (err != nil) != (c.token == "") {
			t.Errorf("%q: %q %v", c.headers, got, err)
		}
	}
}

func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"", "/", "//", "/a//b/", "a", "/%2F/", "/a/%2e%2e/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := web.CleanPath(in)
		if !strings.HasPrefix(out, "/") || strings.Contains(out, "//") || out != "/" && strings.HasSuffix(out, "/") {
			t.Errorf("CleanPath(%q) = %q", in, out)
		}
		if again := web.CleanPath(out); again != out {
			t.Errorf("not a fixed point: %q, %q", out, again)
		}
		if strings.ReplaceAll(in, "/", "") != strings.ReplaceAll(out, "/", "") {
			t.Errorf("CleanPath(%q) = %q changed more than slashes", in, out)
		}
	})
}
