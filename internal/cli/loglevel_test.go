package cli

import (
	"log/slog"
	"testing"
)

func TestLogLevel(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"": slog.LevelWarn, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
		"trace": slog.LevelDebug, "all": slog.LevelDebug, "warning": slog.LevelWarn,
	} {
		if got, err := logLevel(name); got != want || err != nil {
			t.Errorf("%q: %v, %v, want %v", name, got, err, want)
		}
	}
	if _, err := logLevel("loud"); err == nil {
		t.Error("an unknown level is taken")
	}
}
