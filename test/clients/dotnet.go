package clients

import (
	"context"
	"fmt"
	"path/filepath"
)

// DotNet installs azmcp, Microsoft's MCP server for Azure, as the
// package-lock.json in a directory pins it, and returns the program: one file
// that holds .NET and the Azure SDK for .NET.
func (in *Installer) DotNet(ctx context.Context, pinned string) (string, error) {
	// The program is in one optional package for each platform, and npm does
	// without when it cannot have the one for this machine.
	dir, err := in.modules(ctx, pinned, func(dir string) error {
		_, err := azmcp(dir)
		return err
	})
	if err != nil {
		return "", err
	}
	return azmcp(dir)
}

func azmcp(dir string) (string, error) {
	pattern := filepath.Join(dir, "node_modules", "@azure", "mcp-linux-*", "dist", "azmcp")
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("want one program %s, found %d: npm did not get its package, or has none for this machine", pattern, len(found))
	}
	return found[0], nil
}
