package aks

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/podkey/podkey/deploy/chart"
	"github.com/podkey/podkey/internal/install"
	"github.com/podkey/podkey/internal/kubeconfig"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/store"
)

const (
	// workTime is for one attempt at an operation. Most of it is the time that
	// nodes take to get the image.
	workTime = 5 * time.Minute
	// lease is how long a process that does not renew it is believed to work.
	lease = 45 * time.Second
	// lookAround is the time between two looks for operations that nobody works
	// on, which other servers may have left.
	lookAround = 15 * time.Second
	// storeTime is for writing how an operation ended.
	storeTime = 10 * time.Second
)

// Operations under way at once, of all and of one tenant: a cluster that hangs
// holds one for as long as workTime, and must not hold up other tenants'.
const (
	maxRuns       = 16
	maxTenantRuns = 4
)

// Codes of operations that failed.
const (
	codeNoKubeconfig = "KubeconfigNotRegistered"
	codeUnusable     = "KubeconfigNotUsable"
	codeUnreachable  = "ClusterNotReachable"
	codeDenied       = "ClusterAccessDenied"
	codeTaken        = "ObjectNotPodkeys"
	codeNotReady     = "WebhookNotReady"
	codeRefused      = "ClusterRefused"
	codeInternal     = "InternalOperationError"
)

// runs are the operations that this process works on, by cluster.
type runs struct {
	mu   sync.Mutex
	byID map[string]*runInfo // by key of the cluster
	wake chan struct{}       // has a token when there may be something to do
}

type runInfo struct {
	tenant string
	stop   context.CancelFunc
}

// kick makes Run look for work.
func (r *runs) kick() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// take reserves the one place of a cluster, if there is room.
func (r *runs) take(key, tenant string, stop context.CancelFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := 0
	for _, x := range r.byID {
		if x.tenant == tenant {
			same++
		}
	}
	if r.byID[key] != nil || len(r.byID) >= maxRuns || same >= maxTenantRuns {
		return false
	}
	r.byID[key] = &runInfo{tenant, stop}
	return true
}

// release gives the place of a cluster back.
func (r *runs) release(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, key)
}

// stop ends the work on a cluster that is not registered any more.
func (r *runs) stop(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.byID[key]; x != nil {
		x.stop()
	}
}

// Run works on the operations of clusters until ctx ends, and then waits for
// those under way, which leave their wish for the next start or another
// server. Operations that a server left when it died are done again.
func (c *Clusters) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	look := time.NewTicker(lookAround)
	defer look.Stop()
	for {
		if err := c.claim(ctx, &work); err != nil && ctx.Err() == nil {
			c.o.Log.Error("looking for operations of clusters failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.runs.wake:
		case <-look.C:
		}
	}
}

// claim starts the work on all operations that nobody works on.
func (c *Clusters) claim(ctx context.Context, work *sync.WaitGroup) error {
	all, err := c.clusters.Scan(ctx, "", "", 0)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Err != nil || !c.free(&e.Value) {
			continue
		}
		run, stop := context.WithCancel(ctx)
		if !c.runs.take(e.Key, e.Value.TenantID, stop) {
			stop()
			continue
		}
		a, ok, err := c.own(ctx, e.Key, e.Value.Operation.ID)
		if err != nil || !ok { // another server was faster, or it is gone
			stop()
			c.runs.release(e.Key)
			if err != nil {
				return err
			}
			continue
		}
		work.Go(func() {
			defer c.runs.kick() // for who found no room
			defer c.runs.release(e.Key)
			defer stop()
			c.work(ctx, run, stop, e.Key, &a)
		})
	}
	return nil
}

// free tells whether an operation waits for somebody to work on it.
func (c *Clusters) free(a *cluster) bool {
	op := &a.Operation
	return op.State == updating && (op.Runner == "" || !c.o.Now().Before(op.Lease) || c.o.Alone && op.Runner != c.runner)
}

// own writes down that this process works on an operation.
func (c *Clusters) own(ctx context.Context, key, id string) (a cluster, ok bool, err error) {
	err = c.s.Update(ctx, func(tx *store.Tx) error {
		a, ok, err = c.clusters.Get(tx, key)
		if ok = err == nil && ok && a.Operation.ID == id && c.free(&a); !ok {
			return err
		}
		a.Operation.Runner, a.Operation.Lease = c.runner, c.o.Now().Add(lease).UTC()
		return c.clusters.Put(tx, key, a)
	})
	return a, ok && err == nil, err
}

// changeOwn changes a cluster whose operation this process works on. ok is
// false if it does not any more: the cluster was unregistered, or another server took over.
func (c *Clusters) changeOwn(ctx context.Context, key string, a *cluster, change func(now *cluster)) (ok bool, err error) {
	err = c.s.Update(ctx, func(tx *store.Tx) error {
		now, there, err := c.clusters.Get(tx, key)
		if ok = err == nil && there && now.Operation.ID == a.Operation.ID && now.Operation.Runner == c.runner && now.Operation.State == updating; !ok {
			return err
		}
		change(&now)
		return c.clusters.Put(tx, key, now)
	})
	return ok && err == nil, err
}

// work does an operation once. life is the server's, run ends with it or when
// the cluster is unregistered.
func (c *Clusters) work(life, run context.Context, stop context.CancelFunc, key string, a *cluster) {
	log := c.o.Log.With("cluster", a.ID, "operation", a.Operation.ID, "workloadIdentity", a.WorkloadIdentity)
	log.Info("an operation of a cluster begins")
	// Package install words the end of its own time better than this one.
	bounded, cancel := context.WithTimeout(run, c.o.WorkTime+storeTime)
	defer cancel()
	var renewal sync.WaitGroup
	renewing, done := context.WithCancel(run)
	renewal.Go(func() { c.renew(renewing, stop, key, a) })
	start := time.Now()
	detail := c.perform(bounded, key, a)
	done()
	renewal.Wait()

	end, cancelEnd := context.WithTimeout(context.WithoutCancel(life), storeTime)
	defer cancelEnd()
	if detail != nil && run.Err() != nil {
		// Stopped from outside: the wish stays, for whoever comes next.
		if _, err := c.changeOwn(end, key, a, func(now *cluster) { now.Operation.Runner, now.Operation.Lease = "", time.Time{} }); err != nil {
			log.Error("an interrupted operation of a cluster could not be released", "error", err)
		}
		log.Info("an operation of a cluster was interrupted")
		return
	}
	ok, err := c.changeOwn(end, key, a, func(now *cluster) {
		op := &now.Operation
		op.State, op.Ended, op.Error, op.Runner, op.Lease = succeeded, c.o.Now().UTC(), detail, "", time.Time{}
		switch {
		case detail != nil:
			op.State = failed
		case now.WorkloadIdentity:
			now.Webhook = present
		default:
			now.Webhook = absent
		}
		now.touch(c.o.Now())
	})
	switch {
	case err != nil:
		log.Error("the end of an operation of a cluster could not be stored; it is done again", "error", err)
	case !ok:
		log.Info("a cluster went away while an operation was under way")
	case detail != nil:
		log.Warn("an operation of a cluster failed", "code", detail.Code, "reason", detail.Message, "duration", time.Since(start))
	default:
		log.Info("an operation of a cluster succeeded", "duration", time.Since(start))
	}
}

// renew tells the other servers that this one lives, and stops the work if
// the operation is not ours any more.
func (c *Clusters) renew(ctx context.Context, stop context.CancelFunc, key string, a *cluster) {
	t := time.NewTicker(lease / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		ok, err := c.changeOwn(ctx, key, a, func(now *cluster) { now.Operation.Lease = c.o.Now().Add(lease).UTC() })
		if err == nil && !ok {
			stop()
			return
		}
	}
}

// perform makes a cluster what is wished. What it returns is shown to who may
// read the cluster.
func (c *Clusters) perform(ctx context.Context, key string, a *cluster) *arm.ErrorDetail {
	access, ok, err := c.kubeconfigs.Load(ctx, key)
	if err != nil {
		return c.internal(a, "read the kubeconfig", err)
	}
	if !ok {
		return &arm.ErrorDetail{Code: codeNoKubeconfig, Message: "The cluster has no kubeconfig any more. " + a.byHand()}
	}
	config, closeAll, err := c.reach(&access, a.TrustedServer)
	if err != nil {
		return &arm.ErrorDetail{Code: codeUnusable, Message: "The server cannot use the cluster's kubeconfig: " + redact(err.Error(), &access) + ". " + a.byHand()}
	}
	defer closeAll()
	o := install.Options{Timeout: c.o.WorkTime, Patience: c.o.Patience, Poll: c.o.Poll}
	if a.WorkloadIdentity {
		objects, err := c.o.Manifests(ctx, a.TenantID)
		if err != nil {
			return c.internal(a, "render the manifests", err)
		}
		err = install.Apply(ctx, config, objects, o)
		return c.detail(a, &access, err)
	}
	return c.detail(a, &access, install.Remove(ctx, config, chart.Release{Namespace: c.o.Namespace}, o))
}

// byHand is what to type instead.
func (a *cluster) byHand() string {
	if a.WorkloadIdentity {
		return "From a machine that reaches the cluster: podkey install --kubeconfig FILE"
	}
	return "From a machine that reaches the cluster: podkey uninstall --kubeconfig FILE"
}

// internal is a failure of the server itself: its text is for the log.
func (c *Clusters) internal(a *cluster, what string, err error) *arm.ErrorDetail {
	c.o.Log.Error("an operation of a cluster failed in the server", "cluster", a.ID, "what", what, "error", err)
	return &arm.ErrorDetail{Code: codeInternal, Message: "The server failed; its log says why."}
}

// detail words a failure in the cluster.
func (c *Clusters) detail(a *cluster, access *kubeconfig.Access, err error) *arm.ErrorDetail {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*install.Error](err)
	if !ok && errors.Is(err, context.Canceled) {
		return &arm.ErrorDetail{Code: codeInternal, Message: "The operation was interrupted."}
	}
	if !ok {
		return c.internal(a, "install", errors.New(redact(err.Error(), access)))
	}
	d := &arm.ErrorDetail{Code: codeRefused, Message: strings.TrimRight(redact(err.Error(), access), ".") + "."}
	switch e.Reason {
	case install.Unreachable:
		d.Code = codeUnreachable
		d.Message += " " + a.byHand()
	case install.Denied:
		d.Code = codeDenied
		d.Message += " The kubeconfig's user must be allowed to install: bind it to cluster-admin, or run podkey install as somebody who is."
	case install.Taken:
		d.Code = codeTaken
	case install.NotReady:
		d.Code = codeNotReady
	}
	return d
}
