package graph

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/odata"
	"github.com/podkey/podkey/internal/web"
)

// Sizes of a page: without $top, and at most.
const (
	pageDefault = 100
	pageMost    = 999
)

// entity is an object as an answer shows it.
type entity = map[string]any

// kind is one kind of object: how it is listed, filtered and shown.
type kind[T any] struct {
	name     string // of the collection in paths and contexts
	rules    odata.Rules
	id       func(*T) string // orders a listing
	property func(c *call, v *T, name string) odata.Value
	show     func(c *call, v *T) (entity, error)
	brief    []string // what is shown without $select; nil for all

	// walk visits the objects of the caller's tenant in order of id, from the
	// first one after an id on, until visit returns false.
	walk func(c *call, after string, visit func(*T) bool) error
	// lookup finds objects by the value of a property, where an index has them.
	lookup map[string]func(c *call, value string) ([]T, error)
}

// env is an object as a filter sees it.
type env[T any] struct {
	c *call
	k *kind[T]
	v *T
}

// Property implements [odata.Env].
func (e env[T]) Property(name string) odata.Value { return e.k.property(e.c, e.v, name) }

// Call implements [odata.Env]: the rules have no such function.
func (e env[T]) Call(string, []string) bool { return false }

// list answers a page of a collection.
func (k *kind[T]) list(c *call) error {
	f, err := odata.ParseFor(c.query.Filter, &k.rules)
	if err != nil {
		return badQuery(err)
	}
	if err := c.mayCount(f); err != nil {
		return err
	}
	top := pageDefault
	if c.query.Top > pageMost {
		return badRequest("Invalid page size specified: '%d'. Must be between 1 and %d inclusive.", c.query.Top, pageMost)
	} else if c.query.Top > 0 {
		top = c.query.Top
	}
	after, err := skipToken(c.query.SkipToken)
	if err != nil {
		return err
	}
	shown, err := k.selection(c)
	if err != nil {
		return err
	}
	page, total, more, err := k.page(c, f, after, top)
	if err != nil {
		return err
	}
	value := make([]entity, len(page))
	for i := range page {
		if value[i], err = k.show(c, &page[i]); err != nil {
			return err
		}
		choose(value[i], shown)
	}
	answer := entity{"@odata.context": c.context(k.name, shown, false), "value": value}
	if c.query.Count {
		answer["@odata.count"] = total
	}
	if more {
		answer["@odata.nextLink"] = c.nextLink(k.id(&page[len(page)-1]))
	}
	return web.WriteJSON(c.w, http.StatusOK, answer)
}

// page collects the objects after an id of which the filter is true, and
// counts all of them if the request asks for it.
func (k *kind[T]) page(c *call, f *odata.Filter, after string, top int) (page []T, total int, more bool, err error) {
	visit := func(v *T) bool {
		if !f.Holds(env[T]{c, k, v}) {
			return true
		}
		total++
		switch {
		case after != "" && k.id(v) <= after:
		case len(page) < top:
			page = append(page, *v)
		default:
			more = true
		}
		return !more || c.query.Count
	}
	found, indexed, err := k.candidates(c, f)
	if err != nil {
		return nil, 0, false, err
	}
	if !indexed {
		from := after
		if c.query.Count {
			from = ""
		}
		err = k.walk(c, from, visit)
		return page, total, more, err
	}
	for i := range found {
		if !visit(&found[i]) {
			break
		}
	}
	return page, total, more, nil
}

// candidates finds the objects that a filter can be true of, in order of id,
// where it names the value of an indexed property.
func (k *kind[T]) candidates(c *call, f *odata.Filter) (found []T, indexed bool, err error) {
	for property, find := range k.lookup {
		values, ok := f.OneOf(property)
		if !ok {
			continue
		}
		for _, v := range values {
			some, err := find(c, v)
			if err != nil {
				return nil, false, err
			}
			found = append(found, some...)
		}
		slices.SortFunc(found, func(a, b T) int { return strings.Compare(k.id(&a), k.id(&b)) })
		return slices.CompactFunc(found, func(a, b T) bool { return k.id(&a) == k.id(&b) }), true, nil
	}
	return nil, false, nil
}

// mayCount holds Graph's rule for queries that its indexes do not serve at
// once, so that what works here works there: they need $count and a header.
func (c *call) mayCount(f *odata.Filter) error {
	eventual := strings.EqualFold(c.r.Header.Get("ConsistencyLevel"), "eventual")
	switch {
	case c.query.Count && !eventual:
		return fault.BadRequest(codeInvalid, "$count is not currently supported without the header ConsistencyLevel: eventual.")
	case f.Uses("ne", "not", "endswith") && !(eventual && c.query.Count):
		return fault.BadRequest(codeUnsupported, "Unsupported Query: the operators 'ne', 'not' and 'endswith' need the query option $count=true and the header ConsistencyLevel: eventual.")
	}
	return nil
}

// one answers with a single object.
func (k *kind[T]) one(c *call, status int, v *T) error {
	shown, err := k.selection(c)
	if err != nil {
		return err
	}
	e, err := k.show(c, v)
	if err != nil {
		return err
	}
	choose(e, shown)
	e["@odata.context"] = c.context(k.name, shown, true)
	return web.WriteJSON(c.w, status, e)
}

// selection is what the answer shows of each object, in Graph's spelling; nil
// is all of it.
func (k *kind[T]) selection(c *call) ([]string, error) {
	if c.query.Select == nil {
		return k.brief, nil
	}
	all, err := k.show(c, new(T))
	if err != nil {
		return nil, err
	}
	var shown []string
	for _, name := range c.query.Select {
		found := false
		for known := range all {
			if strings.EqualFold(known, name) {
				shown, found = append(shown, known), true
			}
		}
		if !found {
			return nil, badRequest("Could not find a property named '%s' on type '%s'.", clip(name), k.name)
		}
	}
	return shown, nil
}

// choose drops what was not selected.
func choose(e entity, shown []string) {
	if shown == nil {
		return
	}
	for name := range e {
		if !strings.HasPrefix(name, "@") && !slices.ContainsFunc(shown, func(s string) bool { return strings.EqualFold(s, name) }) {
			delete(e, name)
		}
	}
}

func (c *call) context(name string, shown []string, single bool) string {
	s := c.names.Graph + "/" + c.version + "/$metadata#" + name
	if c.query.Select != nil {
		s += "(" + strings.Join(shown, ",") + ")"
	}
	if single {
		s += "/$entity"
	}
	return s
}

// nextLink is the request's own URL, by the names that it came in by, for the
// page after an id.
func (c *call) nextLink(id string) string {
	query := url.Values{}
	for name, v := range c.r.URL.Query() {
		if !strings.EqualFold(name, "$skiptoken") {
			query[name] = v
		}
	}
	query.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(id)))
	return c.names.Graph + c.r.URL.RawPath + "?" + query.Encode()
}

// skipToken reads the id that a page begins after. An invented one only moves
// the window over what the caller may see anyway.
func skipToken(token string) (string, error) {
	id, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(id) > 200 {
		return "", badRequest("The $skiptoken is not one that this service gave.")
	}
	return string(id), nil
}

// noListOptions refuses the options that say which part of a list is wanted,
// where there is none: they would be ignored.
func (c *call) noListOptions() error {
	if c.query.Filter != "" || c.query.Top != 0 || c.query.Count || c.query.SkipToken != "" {
		return fault.BadRequest(codeUnsupported, "The query options '$filter', '$top', '$count' and '$skiptoken' are not supported for this resource.")
	}
	return nil
}

// whole answers with all of a list that has no pages.
func (c *call) whole(name string, value []entity) error {
	if c.query.Top >= len(value) {
		c.query.Top = 0 // it asks for no less than there is
	}
	if err := c.noListOptions(); err != nil {
		return err
	}
	for _, e := range value {
		if c.query.Select != nil {
			choose(e, c.query.Select)
		}
	}
	return web.WriteJSON(c.w, http.StatusOK, entity{"@odata.context": c.context(name, c.query.Select, false), "value": list(value)})
}

// nothing answers with an empty list, which is the answer whatever a filter
// says that can be read.
func (c *call) nothing(name string) error {
	if _, err := odata.Parse(c.query.Filter); err != nil {
		return badQuery(err)
	}
	c.query = odata.Query{}
	return c.whole(name, nil)
}

// objects answers with a list of objects of different kinds.
func (c *call) objects(os []object) error {
	value := make([]entity, 0, len(os))
	for _, o := range os {
		e, err := o.entity(c)
		if err != nil {
			return err
		}
		value = append(value, e)
	}
	return c.whole("directoryObjects", value)
}

func badRequest(format string, args ...any) error {
	return fault.BadRequest(codeInvalid, format, args...)
}

// byAppID finds by the only alternate key that there is.
func byAppID[T any](c *call, k segment, find func(ctx context.Context, tenant, id string) ([]T, error)) ([]T, error) {
	if !strings.EqualFold(k.alt, "appId") {
		return nil, noSegment(k.alt)
	}
	return find(c.ctx, c.tenant, k.text)
}

func sameID(a, b string) bool { return strings.EqualFold(a, b) }
