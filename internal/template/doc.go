// Package template is the language of Azure Resource Manager templates: pure
// text in, resources out.
//
// It owns the lenient reader of what clients send ([Decode]), the expression
// language ("[concat('a', 'b')]"), the schema of a template ([Load]), and
// what a template means with given parameters ([Template.Bind]): which
// resources there are, in which order they come, what their bodies are and
// what the outputs are. It does no I/O and has no clock: what an expression
// needs from outside comes through [Env] and [Runtime].
//
// It guarantees that
//
//   - what is not understood is refused, by name and with its place in the
//     template, before anything else happens: unknown sections, functions,
//     types, references to what is not there;
//   - evaluation ends: size, depth, number of resources and the amount of
//     text and values that expressions may build are bounded ([Limits]);
//   - no error repeats the value of a secure parameter, and [Deployment.Secrets]
//     knows every text that was made from one.
//
// Errors are *[Error]; whatever else comes out came in through Env or Runtime.
package template

import (
	"fmt"
	"strings"

	words "github.com/podkey/podkey/internal/text" // text is a function here
)

// The limits of the language: those that Azure documents, and bounds on the
// work that one template can cause.
const (
	MaxSize       = 4 << 20 // bytes of a template
	MaxResources  = 800     // resources of a deployment, copies counted
	maxDepth      = 64      // nesting of objects and arrays
	maxExpression = 24576   // characters of an expression
	maxNesting    = 64      // nesting of calls in an expression, and of evaluation
	maxCopies     = 800     // passes of one copy loop
	maxNamed      = 256     // parameters, variables; outputs have the lower limit below
	maxOutputs    = 64
	maxVariables  = 512
	maxOutputSize = 1 << 20 // bytes of all outputs
	maxWork       = 4 << 20 // units of work and room that the expressions of a request may use
)

// Error is a template that cannot be understood or evaluated.
type Error struct {
	Path    string // where in the template, such as resources[0].properties.sku; empty if Line is set
	Line    int    // of the text, from 1; 0 if only the path is known
	Column  int    // from 1
	Message string // without the value of any secure parameter
}

// Error is the message with its place.
func (e *Error) Error() string {
	switch {
	case e.Line > 0:
		return fmt.Sprintf("%s (line %d, position %d)", e.Message, e.Line, e.Column)
	case e.Path != "":
		return fmt.Sprintf("%s (at '%s')", e.Message, e.Path)
	}
	return e.Message
}

func errorAt(path, format string, args ...any) error {
	return &Error{Path: path, Message: fmt.Sprintf(format, args...)}
}

// clip makes text from a template fit for a message.
func clip(s string) string { return words.Clip(s, 120) }

// member is the path of a member of an object.
func member(path, name string) string {
	if path == "" {
		return clip(name)
	}
	return path + "." + clip(name)
}

func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// printable is a text without control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}
