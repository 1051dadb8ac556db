package arm

import (
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/odata"
)

// filter is a parsed $filter; nil is one that everything matches.
type filter = *odata.Filter

// filterRules say which filters a listing understands: properties with their
// operators and functions with the kinds of their arguments, all in lower
// case; see [odata.Rules]. The rest is refused by name.
type filterRules struct {
	properties map[string]string   // name -> operators, such as "eq ne"
	functions  map[string][]string // name -> signatures
}

// filterEnv is one object as a filter sees it. Each of tags is tried in turn
// for tagName and tagValue, so that both speak of the same tag.
type filterEnv struct {
	property func(name string) string // by lower-case name
	call     func(name string, args []string) bool
	tags     map[string]string

	tagName, tagValue string // of the tag being tried
}

// parseFilter parses s and checks it against the rules.
func parseFilter(s string, rules *filterRules) (filter, error) {
	r := odata.Rules{Properties: make(map[string]odata.Property, len(rules.properties)), Functions: rules.functions}
	for name, ops := range rules.properties {
		r.Properties[name] = odata.Property{Kind: odata.Text, Ops: ops}
	}
	f, err := odata.ParseFor(s, &r)
	if err != nil {
		return nil, fault.BadRequest("InvalidFilterInQueryString", "The filter in the query string is not valid: %v.", err)
	}
	return f, nil
}

// match reports whether a filter is true of env. With tags, it is enough that
// one of them makes it true.
func match(f filter, env *filterEnv) bool {
	if f.Holds(env) {
		return true
	}
	for k, v := range env.tags {
		env.tagName, env.tagValue = k, v
		if f.Holds(env) {
			return true
		}
	}
	return false
}

// Property implements [odata.Env].
func (e *filterEnv) Property(name string) odata.Value {
	switch {
	case !strings.HasPrefix(name, "tag"):
		return odata.OfText(e.property(name))
	case e.tagName == "":
		return odata.Value{} // no tag is being tried: nothing is true of one
	case name == "tagname":
		return odata.OfText(e.tagName)
	}
	return odata.Value{Kind: odata.Text, Text: e.tagValue, Exact: true} // values have case, names have not
}

// Call implements [odata.Env].
func (e *filterEnv) Call(name string, args []string) bool { return e.call(name, args) }
