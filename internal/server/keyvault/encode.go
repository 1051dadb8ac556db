package keyvault

import (
	"slices"
	"strconv"

	"github.com/podkey/podkey/internal/text"
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
		e.b = text.AppendJSON(e.b, s.Value)
		e.b = append(e.b, ',')
	}
	e.member(`"id":`, e.url("/secrets/", s.Name, s.ID))
	e.metadata(&s.version)
	if withPrevious && s.Previous != "" {
		e.b = append(e.b, `,"previousVersion":`...)
		e.b = text.AppendJSON(e.b, s.Previous)
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
		e.b = text.AppendJSON(e.b, ver.ContentType)
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
		e.b = text.AppendJSON(e.b, name)
		e.b = append(e.b, ':')
		e.b = text.AppendJSON(e.b, tags[name])
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
