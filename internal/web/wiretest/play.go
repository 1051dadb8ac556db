package wiretest

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
)

// play runs the conversation and returns what was not as written. It stops
// after the first exchange that went wrong: what follows depends on it.
func play(h http.Handler, exchanges []exchange, vars map[string]string) []string {
	known := make(values, len(vars))
	for k, v := range vars {
		known[k] = v
	}
	for _, e := range exchanges {
		req, err := e.request.build(known)
		if err != nil {
			return []string{fmt.Sprintf("request %d: %v", e.number, err)}
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		problems := e.compare(rec, known)
		if len(problems) > 0 {
			for i, p := range problems {
				problems[i] = fmt.Sprintf("exchange %d (%s): %s", e.number, e.request.first, p)
			}
			return append(problems, fmt.Sprintf("the answer was %d %v\n%s", rec.Code, rec.Header(), rec.Body.String()))
		}
	}
	return nil
}

// build makes a request the way a server reads one off the wire, so that
// what net/http itself refuses cannot be tested past it by accident.
func (m message) build(known values) (*http.Request, error) {
	fields := strings.Fields(m.first)
	if len(fields) < 2 || len(fields) > 3 {
		return nil, fmt.Errorf("%q is not a request line", m.first)
	}
	var raw strings.Builder
	fmt.Fprintf(&raw, "%s %s HTTP/1.1\r\n", fields[0], fields[1])
	length, host := false, false
	for _, h := range m.headers {
		fmt.Fprintf(&raw, "%s: %s\r\n", h[0], h[1])
		length = length || strings.EqualFold(h[0], "Content-Length")
		host = host || strings.EqualFold(h[0], "Host")
	}
	head, err := known.fill(raw.String())
	if err != nil {
		return nil, err
	}
	body, err := known.fill(m.body)
	if err != nil {
		return nil, err
	}
	if !host {
		head += "Host: wiretest.invalid\r\n"
	}
	if !length && body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n" + body)))
	if err != nil {
		return nil, err
	}
	req.RemoteAddr = "192.0.2.1:1234"
	return req, nil
}

func (e exchange) compare(rec *httptest.ResponseRecorder, known values) []string {
	var problems []string
	if rec.Code != e.status {
		problems = append(problems, fmt.Sprintf("status %d, want %d", rec.Code, e.status))
	}
	for _, h := range e.response.headers {
		got := rec.Header().Values(h[0])
		switch {
		case h[1] == "{{absent}}" && len(got) > 0:
			problems = append(problems, fmt.Sprintf("header %s is %q, want none", h[0], got))
		case h[1] == "{{absent}}":
		case len(got) != 1:
			problems = append(problems, fmt.Sprintf("header %s comes %d times, want once", h[0], len(got)))
		default:
			if err := known.match(h[1], got[0]); err != nil {
				problems = append(problems, fmt.Sprintf("header %s: %v", h[0], err))
			}
		}
	}
	return append(problems, known.compareBody(e.response.body, rec.Body.String())...)
}
