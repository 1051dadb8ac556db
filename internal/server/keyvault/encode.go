package keyvault

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// The answers are encoded by hand: they have few shapes, and the one of a GET
// is on the path that the server is measured by.

// encoder appends the JSON of answers about one vault.
type encoder struct {
	b      []byte
	origin string // of the vault, such as https://v.vault.azure.net
	vault  *Vault
}

// bundle appends a secret as most operations answer it; value is left out
// unless withValue, and the id of the preceding version unless withPrevious.
func (e *encoder) bundle(s *secret, withValue, withPrevious bool) {
	e.b = append(e.b, '{')
	if withValue {
		e.b = append(e.b, `"value":`...)
		e.b = appendString(e.b, s.Value)
		e.b = append(e.b, ',')
	}
	e.member(`"id":`, e.url("/secrets/", s.Name, s.ID))
	e.metadata(&s.version)
	if withPrevious && s.Previous != "" {
		e.b = append(e.b, `,"previousVersion":`...)
		e.b = appendString(e.b, s.Previous)
	}
	e.b = append(e.b, '}')
}

// item appends a secret as listings show it, with its version in the id if
// withVersion.
func (e *encoder) item(s *secret, withVersion bool) {
	id := ""
	if withVersion {
		id = s.ID
	}
	e.b = append(e.b, '{')
	e.member(`"id":`, e.url("/secrets/", s.Name, id))
	e.metadata(&s.version)
	e.b = append(e.b, '}')
}

// deleted appends a deleted secret, as itself or as an item of a listing,
// whose id has no version.
func (e *encoder) deleted(d *deletedSecret, listed bool) {
	id := d.ID
	if listed {
		id = ""
	}
	e.b = append(e.b, '{')
	e.member(`"recoveryId":`, e.url("/deletedsecrets/", d.Name, ""))
	e.b = append(e.b, `,"deletedDate":`...)
	e.b = strconv.AppendInt(e.b, d.DeletedAt, 10)
	e.b = append(e.b, `,"scheduledPurgeDate":`...)
	e.b = strconv.AppendInt(e.b, d.PurgeAt, 10)
	e.b = append(e.b, ',')
	e.member(`"id":`, e.url("/secrets/", d.Name, id))
	e.metadata(&d.version)
	e.b = append(e.b, '}')
}

// metadata appends the members that all shapes share, after a comma.
func (e *encoder) metadata(ver *version) {
	if ver.ContentType != "" {
		e.b = append(e.b, `,"contentType":`...)
		e.b = appendString(e.b, ver.ContentType)
	}
	e.b = append(e.b, `,"attributes":{"enabled":`...)
	e.b = strconv.AppendBool(e.b, !ver.Disabled)
	if ver.NotBefore != nil {
		e.b = append(e.b, `,"nbf":`...)
		e.b = strconv.AppendInt(e.b, *ver.NotBefore, 10)
	}
	if ver.Expires != nil {
		e.b = append(e.b, `,"exp":`...)
		e.b = strconv.AppendInt(e.b, *ver.Expires, 10)
	}
	e.b = append(e.b, `,"created":`...)
	e.b = strconv.AppendInt(e.b, ver.Created, 10)
	e.b = append(e.b, `,"updated":`...)
	e.b = strconv.AppendInt(e.b, ver.Updated, 10)
	e.b = append(e.b, `,"recoveryLevel":"`...)
	e.b = append(e.b, e.vault.RecoveryLevel()...)
	e.b = append(e.b, `","recoverableDays":`...)
	e.b = strconv.AppendInt(e.b, int64(e.vault.RetentionDays), 10)
	e.b = append(e.b, '}')
	if ver.Tags != nil {
		e.tags(ver.Tags)
	}
}

func (e *encoder) tags(tags map[string]string) {
	names := make([]string, 0, len(tags))
	for name := range tags {
		names = append(names, name)
	}
	slices.Sort(names)
	e.b = append(e.b, `,"tags":{`...)
	for i, name := range names {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = appendString(e.b, name)
		e.b = append(e.b, ':')
		e.b = appendString(e.b, tags[name])
	}
	e.b = append(e.b, '}')
}

// objectURL is the parts of an object's URL; version may be empty.
type objectURL struct{ collection, name, version string }

func (e *encoder) url(collection, name, version string) objectURL {
	return objectURL{collection, name, version}
}

// member appends a member whose value is a URL. Its parts need no escaping:
// the origin is ours, names and version ids are letters, digits and hyphens.
func (e *encoder) member(name string, u objectURL) {
	e.b = append(e.b, name...)
	e.b = append(e.b, '"')
	e.b = append(e.b, e.origin...)
	e.b = append(e.b, u.collection...)
	e.b = append(e.b, u.name...)
	if u.version != "" {
		e.b = append(e.b, '/')
		e.b = append(e.b, u.version...)
	}
	e.b = append(e.b, '"')
}

// appendString quotes s as JSON and nothing more: no escapes for the sake of
// HTML, and text beyond ASCII as it is. What is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		if i+8 <= len(s) && plain8(s[i:i+8]) {
			i += 8
			continue
		}
		c := s[i]
		if plain(c) {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// plain reports whether a byte stands for itself in a JSON string.
func plain(c byte) bool {
	return c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\'
}

// plain8 is plain for the first eight bytes of s at once: values are long, and
// nearly all of their bytes are plain. Taking 32 from each byte, and 1 from
// each that differs from a quote (or backslash) by that much, sets the top bit
// of those that are not plain; the top bit of a byte beyond ASCII is set
// already. A borrow out of a byte can only add to what is found.
func plain8(s string) bool {
	_ = s[7]
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	quote, slash := x^(ones*'"'), x^(ones*'\\')
	return ((x-ones*' ')|(quote-ones)|(slash-ones)|x)&highs == 0
}
