package main

import "time"

// group is a sequence of commands that depend on each other. It has a
// directory for az's settings and a working directory of its own, so groups
// run side by side; their names of things must differ, because all groups of
// one CLI version share a server.
type group struct {
	name string
	rows []row

	// client is what the commands need: "" for az, "python", "javascript".
	client string
	// values are added to those of the run.
	values map[string]string
	// ownNames runs the commands under `podkey exec --own-names`.
	ownNames bool
}

// row is one command and what must come of it. Exactly one of az, sh, podkey
// and do says what is run. In all strings but patterns, ${name} stands for a
// value: one of the run's (see world.values) or one that an earlier row of the
// group saved.
type row struct {
	// name stands in the table instead of the command.
	name string

	az     string            // a command as its reader types it behind `az `, split as a shell would
	sh     string            // a script for sh -e, with az in its path
	podkey string            // a command of podkey's, with --data added
	do     func(*step) error // anything else
	as     *workload         // runs az or sh under `podkey run` as a workload
	files  map[string]string // written into the working directory before
	env    []string          // NAME=value
	signIn *signIn           // who completes the sign-in that the command asks for
	exit   int               // the exit status that is expected
	out    []check           // all must hold for standard output
	err    string            // pattern that standard error must match
	save   map[string]string // name -> path into the JSON of standard output, "" for its text
	cannot []cannot          // versions of az that cannot run it, and what they do instead
	within time.Duration     // default: two minutes

	// missing says what Podkey lacks for the command, which is not run. It
	// shows in the table and in the summary, so that nobody takes it for done.
	missing string
}

// workload is a service account of the built-in cluster.
type workload struct {
	namespace, account string
	managed            bool // it finds a managed identity instead of a token file
}

// signIn is a person at a browser.
type signIn struct {
	// how is "device" (the code is read from standard error) or "browser"
	// (az starts $BROWSER).
	how string
	// credentials is a JSON file with userName and userPassword; the
	// operator's by default.
	credentials string
}

// cannot says that some versions of az refuse a command by themselves, and
// how: that too is checked.
type cannot struct {
	since, before string // the versions from since on, and those before before
	why           string
	exit          int
	err           string // pattern that standard error must match
	// instead is run in that version after the refusal, under the same
	// expectations as the row, so that later rows find what they need.
	instead string
}

// appliesTo reports whether a version is one of those that cannot.
func (c *cannot) appliesTo(version string) bool {
	return (c.since == "" || compareVersions(version, c.since) >= 0) &&
		(c.before == "" || compareVersions(version, c.before) < 0)
}
