package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

// defaultMaxBytes is the default of Options.MaxBytes, and what etcd's makers
// advise not to go beyond.
const defaultMaxBytes = 8 << 30

// connection is an etcd that we can talk to.
type connection struct {
	client *clientv3.Client
	stop   func()
	defrag func() error // gives back space that was freed; nil if that is not our affair
}

// embedded starts an etcd of one member in this process. It listens nowhere:
// the client calls the server's functions. An acknowledged write has been
// synced to the write-ahead log: etcd's default, which must stay.
func embedded(ctx context.Context, o Options) (*connection, error) {
	dir, log := o.Dir, o.Log
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name = "podkey"
	cfg.Dir = dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil
	cfg.ListenPeerUrls = nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// One member elects itself: there is no network to be patient with. It has
	// no follower to keep its log in memory for either, and reads what is after
	// the last snapshot when it starts.
	cfg.TickMs, cfg.ElectionMs = 25, 125
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 2000, 100
	cfg.MaxSnapFiles, cfg.MaxWalFiles = 2, 2
	cfg.QuotaBackendBytes = cmp.Or(o.MaxBytes, defaultMaxBytes)
	cfg.MaxRequestBytes = 4 << 20
	cfg.MaxTxnOps = 10_000
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapToSlog{log}))
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("start embedded etcd in %s: %w", dir, err)
	}
	stop := func() {
		e.Close()
		unlock()
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		stop()
		return nil, fmt.Errorf("start embedded etcd in %s: %w", dir, err)
	case <-ctx.Done():
		stop()
		return nil, fmt.Errorf("start embedded etcd in %s: %w", dir, ctx.Err())
	}
	c := v3client.New(e.Server)
	return &connection{
		client: c,
		stop: func() {
			c.Close()
			stop()
		},
		defrag: e.Server.Defragment,
	}, nil
}

// lockFlags open a lock file.
const lockFlags = os.O_CREATE | os.O_RDWR

// lockDir makes sure that one process at a time uses dir: etcd itself would
// wait for the other one without a word. The lock ends with the process.
func lockDir(dir string) (unlock func(), err error) {
	f, err := fileutil.TryLockFile(filepath.Join(dir, "lock"), lockFlags, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("the data directory %s is in use by another podkey server: stop it, or choose another with --data", filepath.Dir(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return func() { f.Close() }, nil
}

// dialTimeout is the default of Options.DialTimeout.
const dialTimeout = 5 * time.Second

// dial connects to an external etcd and makes sure that it answers a question
// about the key probe, which this client may ask if it may do anything.
func dial(ctx context.Context, o Options, probe string) (*connection, error) {
	if o.TLS == nil {
		return nil, errors.New("connect to etcd: TLS is required: give --etcd-ca, --etcd-cert and --etcd-key")
	}
	for _, e := range o.Endpoints {
		// The client would speak plain text to an http address, whatever TLS
		// settings it has.
		if !strings.HasPrefix(e, "https://") {
			return nil, fmt.Errorf("connect to etcd: %q is not an https URL", e)
		}
	}
	timeout := cmp.Or(o.DialTimeout, dialTimeout)
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            o.Endpoints,
		TLS:                  o.TLS,
		DialTimeout:          timeout,
		DialKeepAliveTime:    10 * time.Second, // or a lost connection would show only when TCP gives up, after minutes
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize:   16 << 20, // how large a request may be is for the server to say
		Logger:               zap.New(zapToSlog{o.Log}),
		Context:              context.WithoutCancel(ctx),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	if err := answers(ctx, c, probe, timeout, o); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(o.Endpoints, ", "), err)
	}
	return &connection{client: c, stop: func() { c.Close() }}, nil
}

// answers waits until etcd answers a question about the key probe. The
// client's own error would only say that time is up, as it tries again and
// again; so the reason is then looked for without it.
func answers(ctx context.Context, c *clientv3.Client, probe string, timeout time.Duration, o Options) error {
	ask, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := c.Get(ask, probe, clientv3.WithKeysOnly())
	if err == nil || ask.Err() == nil {
		return err
	}
	for _, e := range o.Endpoints {
		if why := handshake(ctx, e, o.TLS); why != nil {
			err = fmt.Errorf("%w; %w", err, why)
		}
	}
	return err
}

// handshake does no more than agree on TLS with an endpoint. A server that
// does not like our certificate says so after the client's part is over, in
// place of its first data.
func handshake(ctx context.Context, endpoint string, config *tls.Config) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if _, err = conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // it is content, and waits for a question
	}
	return err
}
