package admission

import (
	"strconv"
	"strings"
)

// maxLevels is how many levels a place is told by; what is read of a pod has
// fewer.
const maxLevels = 20

// where is the place that a text leads to, as people write it:
// request.object.spec.containers[2]. It is made once there is an error; to keep
// it at hand would take longer than all that is kept.
func where(s []byte) string {
	type level struct {
		name  []byte
		index int // negative in an object
	}
	var at []level
	var last []byte
	for i := 0; i < len(s); i++ {
		top := len(at) - 1
		switch s[i] {
		case '{':
			at = append(at, level{index: -1})
		case '[':
			at = append(at, level{})
		case '}', ']':
			at = at[:max(top, 0)]
		case '"':
			from := i + 1
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
			last = s[from:min(i, len(s))]
		case ':':
			if top >= 0 {
				at[top].name = last
			}
		case ',':
			if top >= 0 && at[top].index >= 0 {
				at[top].index++
			} else if top >= 0 {
				at[top].name = nil
			}
		}
	}
	var b strings.Builder
	for i, l := range at {
		if i == maxLevels {
			b.WriteString("…")
			break
		}
		switch {
		case l.index >= 0:
			b.WriteString("[" + strconv.Itoa(l.index) + "]")
		case l.name == nil:
		case b.Len() == 0:
			b.WriteString(clip(string(l.name)))
		default:
			b.WriteString("." + clip(string(l.name)))
		}
	}
	if b.Len() == 0 {
		return "admission review"
	}
	return b.String()
}
