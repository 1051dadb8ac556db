package aks

import (
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/web"
)

// state is how far an operation is, spelled as clients compare it with the
// words of provisioningState.
type state string

const (
	updating  state = "Updating"
	succeeded state = "Succeeded"
	failed    state = "Failed"
)

// operation is the last piece of work that a cluster was given: to bring what
// workload identity needs, or to take it away. It is stored with the wish, in
// one transaction, before anything is done, so that no end of a server loses
// it; and what is done can be repeated.
type operation struct {
	ID      string           `json:"id"`
	State   state            `json:"state"`
	Started time.Time        `json:"started"`
	Ended   time.Time        `json:"ended,omitzero"`
	Error   *arm.ErrorDetail `json:"error,omitempty"`

	// Runner is the process that works on it, which is believed to live until
	// Lease is over. Nobody does if it is empty.
	Runner string    `json:"runner,omitempty"`
	Lease  time.Time `json:"lease,omitzero"`
}

// webhook is what is known of the webhook in a cluster.
type webhook string

const (
	absent  webhook = ""        // never installed by this server, or removed
	partial webhook = "Partial" // work began and has not succeeded
	present webhook = "Present"
)

// mustBeIdle refuses a change while an operation is under way: what it works
// towards would not be what is stored.
func (a *cluster) mustBeIdle() error {
	if a.Operation.State != updating {
		return nil
	}
	return fault.Conflict("OperationNotAllowed",
		"The managed cluster '%s' is being updated (operation %s, since %s). Wait until its provisioningState is not Updating any more, and try again.",
		a.Name, a.Operation.ID, a.Operation.Started.Format(time.RFC3339))
}

// begin starts an operation if the wish changed, if what was wished has not
// come to be, or if there is a new kubeconfig to reach it by. Without a
// kubeconfig the wish is all there is.
func (a *cluster) begin(have *cluster, reg *parsed, now time.Time) {
	if a.Server == "" {
		return
	}
	reached := reg != nil && reg.access != nil
	switch want := a.WorkloadIdentity; {
	case want != have.WorkloadIdentity:
	case want && (a.Webhook != present || reached):
	case !want && a.Webhook != absent:
	default:
		return
	}
	a.Webhook = partial
	a.Operation = operation{ID: uuid.NewString(), State: updating, Started: now.UTC()}
}

// provisioningState is the state as a cluster shows it.
func (a *cluster) provisioningState() state {
	if a.Operation.State == "" {
		return succeeded
	}
	return a.Operation.State
}

// announce tells where to ask how an operation goes on. Clients that get an
// answer with this header take the cluster in the body for unfinished.
func announce(w http.ResponseWriter, q *arm.Request, a *cluster) {
	if a.Operation.State != updating {
		return
	}
	w.Header().Set("Azure-AsyncOperation", q.Names.Management+a.ID+"/operationStatuses/"+a.Operation.ID+"?api-version="+q.Version)
	w.Header().Set("Retry-After", "1") // without it az waits half a minute
}

// wireOperation is an operation in answers.
type wireOperation struct {
	ID      string           `json:"id"`
	Name    string           `json:"name"`
	Status  string           `json:"status"`
	Started time.Time        `json:"startTime"`
	Ended   *time.Time       `json:"endTime,omitempty"`
	Error   *arm.ErrorDetail `json:"error,omitempty"`
}

// operationStatus is where clients ask how an operation goes on.
func (c *Clusters) operationStatus(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	have, ok, err := c.load(r.Context(), q.ID.Parent())
	if err != nil {
		return err
	}
	op := &have.Operation
	if !ok || op.ID == "" || op.ID != strings.ToLower(q.ID.Name()) {
		return fault.NotFound("OperationNotFound", "The operation could not be found: the managed cluster remembers its last one alone.")
	}
	out := wireOperation{ID: have.ID + "/operationStatuses/" + op.ID, Name: op.ID, Status: string(op.State), Started: op.Started, Error: op.Error}
	if op.State == updating {
		out.Status = "InProgress"
		w.Header().Set("Retry-After", "1")
	} else {
		out.Ended = &op.Ended
	}
	return web.WriteJSON(w, http.StatusOK, out)
}
