package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// printRow writes one line of the table.
func printRow(w io.Writer, r result) {
	fmt.Fprintf(w, "%-8s %-8s %6.1f s  %-12s %s\n", r.Result, r.Version, r.Seconds, r.Group, r.Command)
	if r.Why != "" {
		fmt.Fprintf(w, "%28s%s\n", "", firstLine(r.Why))
	}
}

// summarise prints what failed, with what the commands wrote, then the counts,
// and reports whether all is well.
func summarise(w io.Writer, results []result, took time.Duration) bool {
	count := map[string]int{}
	for i := range results {
		r := &results[i]
		count[r.Result]++
		if r.Result == failed {
			fmt.Fprintf(w, "\n%s %s [%s] %s\n  %s\n%s", r.Result, r.Version, r.Group, r.Command, r.Why, r.detail)
		}
	}
	fmt.Fprintf(w, "\n%d ok, %d refused by az itself as they should be, %d missing in Podkey, %d not run, in %s\n",
		count[ok], count[refused], count[missing], count[notRun], took.Round(time.Second))
	bad := count[failed] + count[notRun]
	fmt.Fprintf(w, "%d passed, %d failed\n", count[ok]+count[refused], bad)
	return bad == 0 && len(results) > 0
}

func writeJSON(w io.Writer, results []result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(results)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
