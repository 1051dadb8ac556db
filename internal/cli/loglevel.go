package cli

import (
	"fmt"
	"log/slog"
)

// logLevel reads a level by our names, and by those that the webhook of
// Azure's clusters has and passes on to its proxy. No name means warn, as for
// that proxy.
func logLevel(name string) (slog.Level, error) {
	switch name {
	case "", "warning":
		return slog.LevelWarn, nil
	case "trace", "all":
		return slog.LevelDebug, nil
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return 0, &usageError{fmt.Errorf("unknown log level %q", name), "use debug, info, warn or error"}
	}
	return level, nil
}
