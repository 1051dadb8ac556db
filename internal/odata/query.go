package odata

import (
	"net/url"
	"strconv"
	"strings"
)

// Query is the system query options of a request.
type Query struct {
	Filter    string
	Select    []string // properties as they are spelled; nil if not given
	Top       int      // 0 if not given
	Count     bool
	SkipToken string
	Expand    string
}

// maxSelect is how many properties $select may name.
const maxSelect = 100

// ParseQuery reads the options of a query string. $search, $orderby, $skip
// and what else begins with a dollar sign are refused, as is an option that is
// given twice. Other parameters are not its concern. Errors are *[Error].
func ParseQuery(values url.Values) (q Query, err error) {
	seen := map[string]bool{}
	for name, vs := range values {
		option, ok := strings.CutPrefix(strings.ToLower(name), "$")
		if !ok {
			continue
		}
		if len(vs) != 1 || seen[option] {
			return Query{}, malformed("the query option '$%s' is given more than once", clip(option))
		}
		seen[option] = true
		if err := q.set(option, vs[0]); err != nil {
			return Query{}, err
		}
	}
	return q, nil
}

func (q *Query) set(option, value string) error {
	switch option {
	case "filter":
		q.Filter = value
	case "select":
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name == "" || len(q.Select) == maxSelect {
				return malformed("the query option '$select' must be a list of at most %d properties", maxSelect)
			}
			q.Select = append(q.Select, name)
		}
	case "top":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return malformed("the query option '$top' must be a positive number, not '%s'", clip(value))
		}
		q.Top = n
	case "count":
		switch strings.ToLower(value) {
		case "true":
			q.Count = true
		case "false":
		default:
			return malformed("the query option '$count' must be true or false, not '%s'", clip(value))
		}
	case "skiptoken":
		q.SkipToken = value
	case "expand":
		q.Expand = value
	case "format":
		if !strings.EqualFold(value, "json") && !strings.HasPrefix(strings.ToLower(value), "application/json") {
			return unsupported("", "the format '%s' is not supported; supported is 'json'", clip(value))
		}
	default:
		return unsupported("", "the query option '$%s' is not supported", clip(option))
	}
	return nil
}
