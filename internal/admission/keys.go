package admission

import (
	"maps"
	"slices"
	"strings"
)

// homes are the annotations and the kinds of object on which each is read.
var homes = map[string][]string{
	clientIDAnnotation:   {"ServiceAccount"},
	tenantIDAnnotation:   {"ServiceAccount"},
	expirationAnnotation: {"Pod", "ServiceAccount"},
	skipAnnotation:       {"Pod"},
	injectAnnotation:     {"Pod"},
	portAnnotation:       {"Pod"},
	protocolAnnotation:   {"Pod"},
}

// keys warns about annotations that nobody reads: misspelt ones, and those on
// the wrong object. kind is the one that has them, or "maker" for what makes
// pods; at is where the metadata of its pods is.
func (a *advice) keys(annotations pairs, kind, at string) {
	guesses := 0
	for _, p := range annotations {
		if a.full {
			return
		}
		key := p.key
		where, known := homes[key]
		switch {
		case key == useLabel:
			a.say("move " + useLabel + " from the annotations to the labels of " + at + ", with the value \"true\": it is not read as an annotation")
		case known && kind == "maker" && slices.Contains(where, "Pod"):
			a.say("move the annotation " + key + " to the annotations of " + at + ": it is not read where it is")
		case known && !slices.Contains(where, kind):
			a.say("move the annotation " + key + " to the " + where[0] + ": it is not read here")
		case !known && guesses < maxGuesses && maybeOurs(key):
			guesses++
			if meant := a.rules.meant(key); meant != "" {
				a.say("write " + meant + " for the annotation " + key + ", which is not read")
			}
		}
	}
}

// maxGuesses is how many annotations of one object are compared with those that
// are read. Each takes some microseconds; nobody has so many that are near.
const maxGuesses = 100

// maybeOurs reports whether it is worth while to compare.
func maybeOurs(key string) bool {
	return len(key) <= 100 && strings.Contains(strings.ToLower(key), "identity")
}

// knownKey is an annotation that is read, and what of it is compared.
type knownKey struct{ key, letters string }

func knownKeys(e *CustomEndpoint) []knownKey {
	keys := slices.Collect(maps.Keys(homes))
	keys = append(keys, useLabel)
	if e != nil {
		keys = append(keys, prefix+"use-"+e.Suffix)
	}
	slices.Sort(keys)
	var out []knownKey
	for _, k := range keys {
		out = append(out, knownKey{k, letters(k)})
	}
	return out
}

// meant is the annotation that a misspelt one is near to, empty if it is near
// to none or needs no correction.
func (r *Rules) meant(key string) string {
	best, least := "", 4 // more than three letters off is another word
	mine := letters(key)
	for _, k := range r.known {
		if k.key == key {
			return ""
		}
		// use is so short that much is near to it.
		if d := distance(mine, k.letters); d < least && (k.key != useLabel || d < 2) {
			best, least = k.key, d
		}
	}
	return best
}

// letters leaves out what people write differently.
func letters(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, strings.ToLower(s))
}

// distance is the number of letters to insert, remove or replace to get from
// one to the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			corner, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, corner+cost)
		}
	}
	return row[len(b)]
}
