package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// embedded starts an etcd of one member in this process. It listens nowhere:
// the client calls the server's functions.
func embedded(ctx context.Context, dir string, log *slog.Logger) (*clientv3.Client, func(), error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make data directory: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name = "podkey"
	cfg.Dir = dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil
	cfg.ListenPeerUrls = nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 10, 100 // one member elects itself: no network to be patient with
	cfg.QuotaBackendBytes = 8 << 30
	cfg.MaxRequestBytes = 4 << 20
	cfg.MaxTxnOps = 10_000
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapToSlog{log}))
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		unlock()
		return nil, nil, fmt.Errorf("start embedded etcd in %s: %w", dir, err)
	}
	stop := func() {
		e.Close()
		unlock()
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		stop()
		return nil, nil, fmt.Errorf("start embedded etcd in %s: %w", dir, err)
	case <-ctx.Done():
		stop()
		return nil, nil, fmt.Errorf("start embedded etcd in %s: %w", dir, ctx.Err())
	}
	c := v3client.New(e.Server)
	return c, func() {
		c.Close()
		stop()
	}, nil
}

// lockDir makes sure that one process at a time uses dir: etcd itself would
// wait for the other one without a word.
func lockDir(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("the data directory %s is in use by another podkey server: stop it, or choose another with --data", filepath.Dir(dir))
	}
	return func() { f.Close() }, nil
}

// dial connects to an external etcd and makes sure that it answers.
func dial(ctx context.Context, o Options) (*clientv3.Client, func(), error) {
	if o.TLS == nil {
		return nil, nil, errors.New("connect to etcd: TLS is required: give --etcd-ca, --etcd-cert and --etcd-key")
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   o.Endpoints,
		TLS:         o.TLS,
		DialTimeout: 5 * time.Second,
		Logger:      zap.New(zapToSlog{o.Log}),
		Context:     context.WithoutCancel(ctx),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to etcd: %w", err)
	}
	probe, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := c.Get(probe, "podkey/~probe"); err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("connect to etcd at %v: %w", o.Endpoints, err)
	}
	return c, func() { c.Close() }, nil
}

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
	if routine[e.Message] {
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

// routine are messages that etcd logs as warnings though nothing is wrong
// with a single member that listens nowhere.
var routine = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"apply request took too long":                  true,
	"simple token is not cryptographically signed": true,
}
