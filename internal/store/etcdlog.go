package store

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap/zapcore"
)

// zapToSlog carries etcd's warnings and errors to our log. Its closing
// listeners and slow-disk notices on shutdown are part of normal life.
type zapToSlog struct{ log *slog.Logger }

func (z zapToSlog) Enabled(l zapcore.Level) bool      { return l >= zapcore.WarnLevel }
func (z zapToSlog) With([]zapcore.Field) zapcore.Core { return z }
func (z zapToSlog) Sync() error                       { return nil }

func (z zapToSlog) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if z.Enabled(e.Level) {
		return ce.AddCore(e, z)
	}
	return ce
}

func (z zapToSlog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	if routine(e.Message) {
		level = slog.LevelDebug
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]any, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	z.log.Log(context.Background(), level, "etcd: "+e.Message, attrs...)
	return nil
}

// routine reports whether etcd logs a message as a warning or an error though
// nothing is wrong: with a single member that listens nowhere, at its first
// start, or with a caller who has gone away.
func routine(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"Failed to detect schema version",
		"failed to update storage version",
		"apply request took too long",
		"retrying of unary invoker failed",
		"simple token is not cryptographically signed":
		return true
	}
	return strings.HasSuffix(message, "there are still pending configuration changes to apply")
}
