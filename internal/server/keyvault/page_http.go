package keyvault

import (
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"

	"github.com/podkey/podkey/internal/text"
)

// maxResults is the largest page, and the size of one that is not chosen.
const maxResults = 25

// listing is what a request for a page asks for.
type listing struct {
	limit int
	after string // key of the last item of the page before; "" for the first page
}

// listing reads maxresults and $skiptoken. collection is what is listed: a
// token of another listing is refused.
func (rq *request) listing(collection string, valid func(string) bool) (listing, error) {
	l := listing{limit: maxResults}
	if s := rq.query.Get("maxresults"); s != "" || rq.query.Has("maxresults") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxResults || s != strconv.Itoa(n) {
			return l, badParameter("The query parameter 'maxresults' must be a number from 1 to %d.", maxResults)
		}
		l.limit = n
	}
	if s := rq.query.Get("$skiptoken"); s != "" || rq.query.Has("$skiptoken") {
		after, ok := openSkipToken(s, collection)
		if !ok || !valid(after) {
			return l, badParameter("The query parameter '$skiptoken' is not valid.")
		}
		l.after = after
	}
	return l, nil
}

// A token of the next page is base64 of "1:" | collection | ":" | last key.
// It says nothing that the page did not, and gives nothing: the next request
// is authorised like the first. So it is not sealed, only strictly read.
const skipTokenVersion = "1:"

func skipToken(collection, last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(skipTokenVersion + collection + ":" + last))
}

// openSkipToken returns the last key in a token of the collection. A token
// that it accepts is the only one for that key.
func openSkipToken(token, collection string) (last string, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || strings.ContainsAny(token, "\r\n") { // which the decoder skips
		return "", false
	}
	return strings.CutPrefix(string(raw), skipTokenVersion+collection+":")
}

// answerPage sends a page with the link to the next one.
func answerPage[T any](rq *request, l listing, path, collection string, p page[T], item func(*encoder, *T)) error {
	return rq.answer(func(e *encoder) {
		e.b = append(e.b, `{"value":[`...)
		for i := range p.items {
			if i > 0 {
				e.b = append(e.b, ',')
			}
			item(e, &p.items[i])
		}
		e.b = append(e.b, `],"nextLink":`...)
		if !p.more {
			e.b = append(e.b, "null}"...)
			return
		}
		next := e.origin + path + "?api-version=" + url.QueryEscape(rq.api) +
			"&$skiptoken=" + skipToken(collection, p.last) + "&maxresults=" + strconv.Itoa(l.limit)
		e.b = text.AppendJSON(e.b, next)
		e.b = append(e.b, '}')
	})
}

// lowerName reports whether s is a name in the form that keys have.
func lowerName(s string) bool { return validName(s) && s == strings.ToLower(s) }

func (h *Handler) listSecrets(rq *request) error {
	const collection = "secrets"
	l, err := rq.listing(collection, lowerName)
	if err != nil {
		return err
	}
	p, err := h.Vaults.listSecrets(rq.r.Context(), &rq.vault, l.after, l.limit)
	if err != nil {
		return err
	}
	return answerPage(rq, l, "/secrets", collection, p, func(e *encoder, s *secret) { e.item(s, false) })
}

func (h *Handler) listDeleted(rq *request) error {
	const collection = "deletedsecrets"
	l, err := rq.listing(collection, lowerName)
	if err != nil {
		return err
	}
	p, err := h.Vaults.listDeleted(rq.r.Context(), &rq.vault, l.after, l.limit)
	if err != nil {
		return err
	}
	return answerPage(rq, l, "/deletedsecrets", collection, p, func(e *encoder, d *deletedSecret) { e.deleted(d, true) })
}

func (h *Handler) listVersions(rq *request) error {
	collection := "versions:" + strings.ToLower(rq.name)
	l, err := rq.listing(collection, validVersion)
	if err != nil {
		return err
	}
	p, err := h.Vaults.listVersions(rq.r.Context(), &rq.vault, rq.name, l.after, l.limit)
	if err != nil {
		return err
	}
	return answerPage(rq, l, "/secrets/"+rq.name+"/versions", collection, p, func(e *encoder, s *secret) { e.item(s, true) })
}
