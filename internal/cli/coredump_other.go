//go:build !linux

package cli

// noCoreDumps does nothing where there is no portable way.
func noCoreDumps() error { return nil }
