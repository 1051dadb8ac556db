package sts

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// A provider that hangs holds those who come meanwhile up once, not one after
// the other.
func TestDiscoveryIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		o := &OIDCProvider{Issuer: "https://idp.test", Client: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			asked++
			time.Sleep(10 * time.Second) // the bubble's
			return nil, errors.New("no answer")
		})}}
		began := time.Now()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if p, err := o.discover(t.Context()); err == nil || p != nil {
					t.Errorf("%v %v", p, err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took != 10*time.Second || asked != 1 {
			t.Errorf("%d requests took %s", asked, took)
		}
		if _, err := o.discover(t.Context()); err == nil || asked != 2 {
			t.Errorf("%d requests: the failure was remembered", asked)
		}
	})
}
