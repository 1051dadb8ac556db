// Command bench measures Podkey beside a bare net/http TLS handler that
// returns the same bytes, in one run on one machine, and prints ratios: noise
// of the machine cancels in them. `make bench` runs it.
//
// Server, bare handler and load generator are three processes. Each
// measurement alternates between server and bare handler for several rounds,
// and the medians are compared. Clients speak HTTP/1.1, each on a warm
// connection of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "bare" {
		bareMain()
		return
	}
	var o options
	var sizes string
	flag.DurationVar(&o.duration, "duration", 2*time.Second, "length of one measurement")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each kind, of which the median counts")
	flag.StringVar(&sizes, "sizes", "1000,100000,1000000", "numbers of secrets at which GET latency is measured; empty for none")
	flag.IntVar(&o.cold, "cold", 300, "cold pods")
	flag.StringVar(&o.only, "only", "", "run only the parts whose names contain this")
	rows := flag.String("rows", "", "measure only the throughputs that this regular expression matches, as in 'GET 16'")
	flag.Parse()
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		fmt.Fprintln(os.Stderr, "bench: -rows:", err)
		os.Exit(2)
	}
	for s := range strings.SplitSeq(sizes, ",") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: -sizes:", err)
			os.Exit(2)
		}
		o.sizes = append(o.sizes, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	duration time.Duration
	rounds   int
	sizes    []int
	cold     int
	only     string
	rows     *regexp.Regexp
}

func (o options) wants(part string) bool { return strings.Contains(part, o.only) }
