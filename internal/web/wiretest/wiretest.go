// Package wiretest plays written conversations against a handler and compares
// the answers. It is for tests only.
//
// A conversation is a txtar file: a comment that says what it shows, then
// pairs of sections, each a request and the response it must get:
//
//	Whoever has no token is told where to get one.
//	-- request --
//	GET /secrets/s?api-version=2026-04-01
//	Host: {{vault}}
//
//	-- response --
//	401
//	WWW-Authenticate: Bearer authorization="{{authority}}", resource="{{*}}"
//
//	{"error": {"code": "Unauthorized", "...": "..."}}
//
// A request is a request line (the protocol may be left out), headers, an
// empty line and a body. Content-Length is filled in unless it is given. A
// response is a status, the headers to check, an empty line and a body; an
// answer may have headers that are not named. An absent body means that the
// answer must have none.
//
// A body that is JSON is compared as a value: members may come in any order,
// but all must be there and no others, unless the object has the member
// "...", or the array ends in the element "...". Any other body is compared
// as text.
//
// Placeholders stand in every part of both sections:
//
//	{{name}}    in a request: its value, which must be known. In a response: its
//	            value if it is known, else any text that is not empty, which
//	            becomes its value for the rest of the conversation.
//	{{*}}       in a response: anything, and nothing too.
//	{{absent}}  as the whole value of a response header: the answer must not
//	            have this header.
//
// A JSON string that is one placeholder and nothing else matches a value of
// any type.
package wiretest

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// Run plays each file that the glob matches as a subtest. setup is called
// once per file, so that conversations share nothing; it returns the handler
// to talk to and the values that are known from the start. Run fails if no
// file matches.
func Run(t *testing.T, glob string, setup func(t *testing.T) (base http.Handler, vars map[string]string)) {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no conversation matches %s", glob)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			exchanges, err := parseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			handler, vars := setup(t)
			for _, problem := range play(handler, exchanges, vars) {
				t.Errorf("%s: %s", file, problem)
			}
		})
	}
}
