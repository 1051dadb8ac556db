package wiretest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// message is a request or a response as it stands in the file.
type message struct {
	first   string      // request line or status
	headers [][2]string // in the order given; names may repeat
	body    string
}

// exchange is one request with the response it must get.
type exchange struct {
	number   int // from 1
	request  message
	status   int
	response message
}

func parseFile(path string) ([]exchange, error) {
	ar, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	return parse(ar)
}

// parse reads a conversation. It refuses what would otherwise be tested less
// than it looks: sections of other names, a request without response, none at
// all.
func parse(ar *txtar.Archive) ([]exchange, error) {
	if len(strings.TrimSpace(string(ar.Comment))) == 0 {
		return nil, errors.New("the conversation does not say what it shows")
	}
	var exchanges []exchange
	for i, f := range ar.Files {
		want := [...]string{"request", "response"}[i%2]
		if f.Name != want {
			return nil, fmt.Errorf("section %d is %q, want %q", i+1, f.Name, want)
		}
		m, err := parseMessage(string(f.Data))
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", i+1, err)
		}
		if want == "request" {
			exchanges = append(exchanges, exchange{number: len(exchanges) + 1, request: m})
			continue
		}
		e := &exchanges[len(exchanges)-1]
		code, _, _ := strings.Cut(strings.TrimPrefix(m.first, "HTTP/1.1 "), " ")
		if e.status, err = strconv.Atoi(code); err != nil || e.status < 100 || e.status > 599 {
			return nil, fmt.Errorf("section %d: bad status %q", i+1, m.first)
		}
		e.response = m
	}
	if len(exchanges) == 0 {
		return nil, errors.New("the conversation is empty")
	}
	if len(ar.Files)%2 != 0 {
		return nil, errors.New("the last request has no response")
	}
	return exchanges, nil
}

func parseMessage(text string) (message, error) {
	head, body, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n")
	lines := strings.Split(strings.Trim(head, "\n"), "\n")
	m := message{first: strings.TrimSpace(lines[0]), body: strings.Trim(body, "\n")}
	if m.first == "" {
		return m, errors.New("the first line is empty")
	}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return m, fmt.Errorf("%q is not a header", line)
		}
		m.headers = append(m.headers, [2]string{name, strings.TrimSpace(value)})
	}
	return m, nil
}
