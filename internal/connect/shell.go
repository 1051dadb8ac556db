package connect

import "strings"

// quote writes a word so that a POSIX shell takes it as it is.
func quote(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// variable is a shell variable of a dry run: what the cloud will have chosen
// by the time that the command runs.
type variable string

const (
	varClientID    variable = "USER_ASSIGNED_CLIENT_ID"
	varPrincipalID variable = "IDENTITY_PRINCIPAL_ID"
	varObjectID    variable = "APPLICATION_OBJECT_ID"
)

// or is the value for a command: itself, or the variable if it is not known.
func (v variable) or(value string) string {
	if value != "" {
		return quote(value)
	}
	return `"$` + string(v) + `"`
}

// inside is the value in the middle of a word between double quotes, where
// nothing but a GUID is believed to be harmless.
func (v variable) inside(value string) string {
	if isGUID(value) {
		return value
	}
	return "${" + string(v) + "}"
}

// held is what stands for the variable in a text that is made before it is
// written for the shell. What comes from elsewhere may have it too, and gets
// the variable's value then: no harm.
func (v variable) held(value string) string {
	if value != "" {
		return value
	}
	return "__" + string(v) + "__"
}

// expand writes a text so that a shell that reads it between double quotes, or
// in a here-document, replaces what is held and nothing else.
func (v variable) expand(text string, document bool) string {
	special := []string{`\`, `\\`, "$", `\$`, "`", "\\`"}
	if !document {
		special = append(special, `"`, `\"`)
	}
	return strings.ReplaceAll(strings.NewReplacer(special...).Replace(text), v.held(""), "${"+string(v)+"}")
}

// mark begins a word that is quoted already. Nothing that came from a server
// begins with it: what is read from JSON is valid UTF-8.
const mark = "\xff"

// words joins the words of a command.
func words(args ...string) string {
	for i, a := range args {
		if done, ok := strings.CutPrefix(a, mark); ok {
			args[i] = done
		} else {
			args[i] = quote(a)
		}
	}
	return strings.Join(args, " ")
}

// written marks a word for words as quoted already.
func written(s string) string { return mark + s }
