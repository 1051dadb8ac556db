//go:build !linux

package intercept

import "errors"

// Install is for Linux only: pods have no other kernel that it could serve.
func (r Redirect) Install() error {
	return errors.New("redirect the metadata address: this works on Linux only")
}
