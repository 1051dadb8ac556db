// Command fetch is an ordinary HTTPS client for the command-line scripts: it
// knows proxy and roots from the environment, as any program does.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	log.SetFlags(0)
	addr := flag.String("addr", "", "connect here instead of to the URL's host, without a proxy")
	flag.Parse()
	t := http.DefaultTransport.(*http.Transport).Clone()
	if *addr != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, *addr)
		}
	}
	resp, err := (&http.Client{Transport: t, Timeout: 10 * time.Second}).Get(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		log.Fatal(err)
	}
}
