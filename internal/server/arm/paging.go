package arm

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// maxPage is the largest page of a listing, and the size of one whose client
// names none.
const maxPage = 1000

// wireList is a page.
type wireList[T any] struct {
	Value    []T    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// page is the part of a listing that a request asks for.
type page struct {
	top   int    // items at most
	after string // key of the last item of the page before; empty for the first page
}

// pageOf reads $top and $skipToken. The token is the last key that the client
// was shown; an invented one only moves the window over what the client may
// see anyway.
func pageOf(query url.Values) (p page, err error) {
	p.top = maxPage
	top, err := parameter(query, "$top")
	if err != nil {
		return p, err
	}
	if top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 {
			return p, fault.BadRequest("InvalidTopInQueryString", "The $top query parameter '%s' is not a positive number.", clip(top))
		}
		p.top = min(n, maxPage)
	}
	token, err := parameter(query, "$skiptoken")
	if err != nil || token == "" {
		return p, err
	}
	key, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(key) == 0 {
		return p, fault.BadRequest("InvalidSkipToken", "The $skiptoken query parameter is not one that this service gave.")
	}
	p.after = string(key)
	return p, nil
}

// readable keeps those items of a listing that the caller may read. It
// reuses the memory of all.
func readable[T any](ctx context.Context, q *Request, all []T, action string, id func(*T) string) ([]T, error) {
	shown := all[:0]
	for i := range all {
		ok, err := q.Allowed(ctx, action, id(&all[i]))
		if err != nil {
			return nil, err
		}
		if ok {
			shown = append(shown, all[i])
		}
	}
	return shown, nil
}

// writePage sorts items by their keys, which are unique, and answers with
// the page that q asks for.
func writePage[T, W any](w http.ResponseWriter, q *Request, items []T, key func(*T) string, wire func(*T) W) error {
	p, err := pageOf(q.Query)
	if err != nil {
		return err
	}
	sortByKey(items, key)
	out := wireList[W]{Value: []W{}}
	for i := range items {
		k := key(&items[i])
		if p.after != "" && k <= p.after {
			continue
		}
		if len(out.Value) == p.top {
			out.NextLink = q.nextLink(key(&items[i-1]))
			break
		}
		out.Value = append(out.Value, wire(&items[i]))
	}
	return web.WriteJSON(w, http.StatusOK, out)
}

// nextLink is the absolute URL of the page after key: the request's own, by
// the names that it came in by.
func (q *Request) nextLink(key string) string {
	query := url.Values{}
	for k, v := range q.Query {
		if !strings.EqualFold(k, "$skiptoken") {
			query[k] = v
		}
	}
	query.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(key)))
	return q.Names.Management + (&url.URL{Path: q.ID.String()}).EscapedPath() + "?" + query.Encode()
}
