package wiretest

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// echo answers every request with the headers and body that its own body
// asks for: lines of headers, an empty line, the body.
func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	head, body, _ := strings.Cut(string(b), "\n\n")
	for line := range strings.SplitSeq(head, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			w.Header().Add(name, value)
		}
	}
	_, _ = io.WriteString(w, body)
}

const echoed = "shows\n-- request --\nPUT / HTTP/1.1\n\nX-A: one\nX-B: b\nX-B: b\n\n"

func playText(t *testing.T, text string, vars map[string]string) []string {
	t.Helper()
	ex, err := parse(txtar.Parse([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	return play(http.HandlerFunc(echo), ex, vars)
}

func TestComparison(t *testing.T) {
	tests := []struct {
		name, body, response string
		ok                   bool
	}{
		{"equal", `{"a":1,"b":[true,null]}`, `200` + "\n\n" + `{"b":[true,null],"a":1}`, true},
		{"status", `{}`, "201\n\n{}", false},
		{"header", `{}`, "200\nX-A: one\n\n{}", true},
		{"other header", `{}`, "200\nX-A: two\n\n{}", false},
		{"repeated header", `{}`, "200\nX-B: b\n\n{}", false},
		{"missing header", `{}`, "200\nX-C: c\n\n{}", false},
		{"absent header", `{}`, "200\nX-C: {{absent}}\n\n{}", true},
		{"present header", `{}`, "200\nX-A: {{absent}}\n\n{}", false},
		{"value", `{"a":1}`, "200\n\n" + `{"a":2}`, false},
		{"type", `{"a":1}`, "200\n\n" + `{"a":"1"}`, false},
		{"member too many", `{"a":1,"b":2}`, "200\n\n" + `{"a":1}`, false},
		{"open object", `{"a":1,"b":2}`, "200\n\n" + `{"a":1,"...":0}`, true},
		{"open object lacks one", `{"b":2}`, "200\n\n" + `{"a":1,"...":0}`, false},
		{"element too many", `[1,2]`, "200\n\n[1]", false},
		{"open array", `[1,2]`, "200\n\n" + `[1,"..."]`, true},
		{"open array lacks one", `[]`, "200\n\n" + `[1,"..."]`, false},
		{"null is not absent", `{}`, "200\n\n" + `{"a":null}`, false},
		{"anything", `{"a":{"b":1}}`, "200\n\n" + `{"a":"{{*}}"}`, true},
		{"any body", `text`, "200\n\n{{*}}", true},
		{"no body", ``, "200\n", true},
		{"unexpected body", `{}`, "200\n", false},
		{"missing body", ``, "200\n\n{}", false},
		{"text", `hello you`, "200\n\nhello {{who}}", true},
		{"other text", `hello you`, "200\n\nbye {{who}}", false},
		{"text for JSON", `oops`, "200\n\n{}", false},
		{"two values", `{} {}`, "200\n\n{}", false},
		{"same capture", `{"a":"x-1","b":"1"}`, "200\n\n" + `{"a":"x-{{n}}","b":"{{n}}"}`, true},
		{"other capture", `{"a":"x-1","b":"2"}`, "200\n\n" + `{"a":"x-{{n}}","b":"{{n}}"}`, false},
		{"capture twice in one", `{"a":"1=2"}`, "200\n\n" + `{"a":"{{n}}={{n}}"}`, false},
		{"capture is not empty", `{"a":""}`, "200\n\n" + `{"a":"{{n}}"}`, false},
		{"number capture", `{"a":12,"b":12}`, "200\n\n" + `{"a":"{{n}}","b":"{{n}}"}`, true},
		{"known", `{"a":"v"}`, "200\n\n" + `{"a":"{{known}}"}`, true},
		{"known differs", `{"a":"w"}`, "200\n\n" + `{"a":"{{known}}"}`, false},
		{"pattern signs are text", `{"a":"x1"}`, "200\n\n" + `{"a":"x."}`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			problems := playText(t, echoed+tt.body+"\n-- response --\n"+tt.response+"\n", map[string]string{"known": "v"})
			if tt.ok != (len(problems) == 0) {
				t.Errorf("problems %q, want ok %v", problems, tt.ok)
			}
		})
	}
}

func TestCapturesReachLaterRequests(t *testing.T) {
	text := "shows\n-- request --\nPUT /\n\nX: 1\n\n{\"id\":\"a/77\"}\n-- response --\n200\n\n{\"id\":\"a/{{id}}\"}\n" +
		"-- request --\nPUT /{{id}}\n\nX: 1\n\n{\"got\":\"{{id}}\"}\n-- response --\n200\n\n{\"got\":\"77\"}\n"
	if p := playText(t, text, nil); len(p) > 0 {
		t.Error(p)
	}
	text = strings.Replace(text, "a/{{id}}", "a/{{other}}", 1)
	if p := playText(t, text, nil); len(p) != 1 || !strings.Contains(p[0], "{{id}} has no value yet") {
		t.Error(p)
	}
}

func TestBadConversations(t *testing.T) {
	const request, response = "-- request --\nGET /\n", "-- response --\n200\n"
	for name, text := range map[string]string{
		"no comment":       request + response,
		"empty":            "shows\n",
		"no response":      "shows\n" + request,
		"response first":   "shows\n" + response + request,
		"two requests":     "shows\n" + request + request,
		"other section":    "shows\n-- note --\nx\n",
		"bad status":       "shows\n" + request + "-- response --\nOK\n",
		"bad header":       "shows\n" + request + "-- response --\n200\nno colon here\n",
		"empty first line": "shows\n-- request --\n\n\n-- response --\n200\n",
	} {
		if _, err := parse(txtar.Parse([]byte(text))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRequestsAreReadAsFromTheWire(t *testing.T) {
	text := "shows\n-- request --\nGET /a b c d\n-- response --\n200\n"
	if p := playText(t, text, nil); len(p) != 1 || !strings.Contains(p[0], "not a request line") {
		t.Error(p)
	}
	text = "shows\n-- request --\nPUT /\nX-A: 1\nX-A: 2\nHost: h.example\n\nbody\n-- response --\n200\n"
	ex, err := parse(txtar.Parse([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	var got *http.Request
	play(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r }), ex, nil)
	if got.Host != "h.example" || len(got.Header["X-A"]) != 2 || got.ContentLength != 4 || got.RemoteAddr == "" {
		t.Errorf("%+v", got)
	}
}
