package arm

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
)

// Azure's limits for tags: their number, and the characters in a name and in
// a value.
const (
	maxTags     = 50
	maxTagName  = 512
	maxTagValue = 256
)

// checkTags applies Azure's rules for the tags of a resource.
func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return fault.BadRequest("TooManyTags", "The resource has %d tags. The maximum is %d.", len(tags), maxTags)
	}
	seen := make(map[string]bool, len(tags))
	for name, value := range tags {
		fold := strings.ToLower(name)
		switch {
		case name == "" || utf8.RuneCountInString(name) > maxTagName:
			return fault.BadRequest("InvalidTagNameLength", "A tag name must have 1 to %d characters.", maxTagName)
		case strings.ContainsAny(name, `<>%&\?/`) || strings.ContainsFunc(name, unicode.IsControl):
			return fault.BadRequest("InvalidTagNameCharacters", "The tag name '%s' has reserved characters '<,>,%%,&,\\,?,/' or control characters.", clip(name))
		case utf8.RuneCountInString(value) > maxTagValue:
			return fault.BadRequest("InvalidTagValueLength", "The value of the tag '%s' is too long. The maximum is %d characters.", clip(name), maxTagValue)
		case seen[fold]:
			return fault.BadRequest("InvalidTagNames", "The tag name '%s' is given twice: names of tags have no case.", clip(name))
		}
		seen[fold] = true
	}
	return nil
}

// tagsWire is tags in the answers of resources that always have the member.
func tagsWire(tags map[string]string) map[string]string {
	if tags == nil {
		return map[string]string{}
	}
	return tags
}

// validGroupName reports whether s can name a resource group: 1 to 90 letters,
// digits, '-', '_', '.', '(' and ')', not ending in a dot. Azure also accepts
// letters beyond ASCII; here ids are ASCII, so that comparing them without
// case has one meaning everywhere.
func validGroupName(s string) bool {
	return len(s) >= 1 && len(s) <= 90 && s[len(s)-1] != '.' && onlyNameBytes(s, "-_.()")
}

// validIdentityName reports whether s can name a managed identity: 3 to 128
// letters, digits, '-' and '_', the first a letter or digit.
func validIdentityName(s string) bool {
	return len(s) >= 3 && len(s) <= 128 && s[0] != '-' && s[0] != '_' && onlyNameBytes(s, "-_")
}

func onlyNameBytes(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(others, c) >= 0) {
			return false
		}
	}
	return true
}

func badName(resourceType, name, rule string) error {
	return fault.BadRequest("InvalidResourceName", "The name '%s' of the resource of type '%s' is invalid. It must have %s.", clip(name), resourceType, rule)
}
