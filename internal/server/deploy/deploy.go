// Package deploy is the resource type Microsoft.Resources/deployments of the
// management API: what `az deployment` talks to.
//
// It owns the records of deployments and the way in which a template becomes
// resources. The language itself is in package template; every resource is
// read and written as the caller, through [arm.Request.Do], so that a
// deployment may do nothing that its caller may not do one by one.
//
// It guarantees that
//
//   - nothing is changed by a template that is not understood, or that needs a
//     permission which the caller lacks at the start;
//   - the values of secure parameters, and what is made from them, are in no
//     record, answer, operation or error;
//   - what-if and validate write nothing but audit lines.
//
// A deployment runs to its end before it is answered: the resources of this
// server take milliseconds each. Its record says Running first, with a lease
// that the run renews. A process that dies leaves such a record: when the
// lease is over, or at once when the only server starts again
// ([Handler.Resume]), it counts as failed. Running the template again comes
// to the same end, since every resource is a PUT.
package deploy

import (
	"context"
	"log/slog"
	"time"

	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/store"
)

const (
	typeDeployment = "Microsoft.Resources/deployments"
	action         = typeDeployment + "/"
)

// Limits of time. The whole is below the time that the server's listener
// gives an answer; the lease is far above what one resource takes.
const (
	runTime  = 50 * time.Second
	lease    = 15 * time.Second
	progress = time.Second // between two writes of a running record
)

// Options adjust a Handler. The zero value suits a server.
type Options struct {
	Now func() time.Time // clock; time.Now if nil
	Log *slog.Logger     // for failures of ours; slog.DiscardHandler if nil
}

// Handler is the resource type. Create with [New]; safe for concurrent use.
type Handler struct {
	o           Options
	s           *store.Store
	deployments *store.Table[record]
	templates   *store.Table[kept]

	life context.Context // of the runs; ended by stop
	stop context.CancelFunc
}

// New declares the tables deployment and deploymenttemplate and registers
// the type and its operations with the management plane. Call it before
// Store.Load.
func New(s *store.Store, a *arm.Handler, o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{o: o, s: s}
	h.life, h.stop = context.WithCancel(context.Background())
	h.deployments = store.NewTable(s, "deployment", store.TableOptions[record]{Mode: store.Sealed})
	h.templates = store.NewTable(s, "deploymenttemplate", store.TableOptions[kept]{Mode: store.Disk})
	h.register(a)
	return h
}

// Stop makes the runs under way end after the resource that they are at: the
// listener waits for handlers, but not for as long as a run may take. A run
// that was stopped has failed, and says so.
func (h *Handler) Stop() { h.stop() }

func (h *Handler) register(a *arm.Handler) {
	const at = arm.AtGroup | arm.AtSubscription
	versions := arm.ResourcesVersions()
	a.Register(arm.ResourceType{
		Name: typeDeployment, Versions: versions,
		Find: h.find, List: h.listHeld, Delete: h.removeHeld,
		// Actions such as validate are on deployments that are not there yet.
		Loose: true, Leaf: true,
		Routes: []arm.Route{
			{Method: "GET", Collection: true, Levels: at, Action: action + "read", Visible: true, Handle: h.list},
			{Method: "GET", Levels: at, Action: action + "read", Handle: h.get},
			{Method: "PUT", Levels: at, Action: action + "write", Handle: h.put},
			{Method: "DELETE", Levels: at, Action: action + "delete", Handle: h.delete},
		},
	})
	for _, op := range []struct {
		name, action string
		handle       handle
	}{
		{"validate", "validate/action", h.validate},
		{"whatIf", "whatIf/action", h.whatIf},
		{"cancel", "cancel/action", h.cancel},
		{"exportTemplate", "exportTemplate/action", h.exportTemplate},
	} {
		a.Register(arm.ResourceType{Name: typeDeployment + "/" + op.name, Versions: versions, Hidden: true, Routes: []arm.Route{
			{Method: "POST", Collection: true, Levels: at, Action: action + op.action, Handle: op.handle},
		}})
	}
	operations := []arm.Route{
		{Method: "GET", Collection: true, Levels: at, Action: action + "operations/read", Handle: h.listOperations},
		{Method: "GET", Levels: at, Action: action + "operations/read", Handle: h.getOperation},
	}
	a.Register(arm.ResourceType{Name: typeDeployment + "/operations", Versions: versions, Leaf: true, Routes: operations})
	// In groups, az and the SDKs ask for operations by the path that Azure
	// had before providers.
	const old = "/subscriptions/resourceGroups/deployments"
	a.Register(arm.ResourceType{Name: old, Versions: versions, Hidden: true, Loose: true, Leaf: true})
	a.Register(arm.ResourceType{Name: old + "/operations", Versions: versions, Hidden: true, Leaf: true, Routes: operations})
	a.Register(arm.ResourceType{Name: typeDeployment + "/operationStatuses", Versions: versions, Hidden: true, Leaf: true, Routes: []arm.Route{
		{Method: "GET", Levels: at, Action: action + "operationStatuses/read", Handle: h.operationStatus},
	}})
}
