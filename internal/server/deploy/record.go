package deploy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/template"
)

// The states of a deployment, spelled as clients compare them.
const (
	running   = "Running"
	succeeded = "Succeeded"
	failed    = "Failed"
	accepted  = "Accepted" // in answers alone
)

// record is a deployment as it is stored. It has no secure value.
type record struct {
	ID             string                    `json:"id"` // in display case
	Name           string                    `json:"name"`
	SubscriptionID string                    `json:"subscriptionId"`
	Group          string                    `json:"group,omitempty"`
	Location       string                    `json:"location,omitempty"`
	Tags           map[string]string         `json:"tags,omitempty"`
	Mode           string                    `json:"mode"`
	State          string                    `json:"state"`
	Run            string                    `json:"run"`   // id of the run that may write the record
	Lease          time.Time                 `json:"lease"` // until when a running one is believed to run
	CorrelationID  string                    `json:"correlationId"`
	Started        time.Time                 `json:"started"`
	Ended          time.Time                 `json:"ended"`
	TemplateHash   string                    `json:"templateHash"`
	Parameters     map[string]template.Shown `json:"parameters,omitempty"`
	Outputs        map[string]template.Shown `json:"outputs,omitempty"`
	Resources      []planned                 `json:"resources,omitempty"`
	Operations     []operation               `json:"operations,omitempty"`
	Error          *arm.ErrorDetail          `json:"error,omitempty"`
}

// planned is a resource that the template has.
type planned struct {
	ID        string   `json:"id"`
	Type      string   `json:"type"`
	Name      string   `json:"name"`
	DependsOn []string `json:"dependsOn,omitempty"` // ids
	Deployed  bool     `json:"deployed,omitempty"`
}

// operation is what became of one resource.
type operation struct {
	ID       string           `json:"id"`
	Resource string           `json:"resource,omitempty"` // id; empty for the outputs
	Type     string           `json:"type,omitempty"`
	Name     string           `json:"name,omitempty"`
	Kind     string           `json:"kind"` // Create or EvaluateDeploymentOutput
	State    string           `json:"state"`
	Status   int              `json:"status"`
	Started  time.Time        `json:"started"`
	Took     time.Duration    `json:"took"`
	Error    *arm.ErrorDetail `json:"error,omitempty"`
}

// kept is the text of a template, compressed, for exportTemplate.
type kept struct {
	Text []byte `json:"text"`
}

// maxKept is the size from which a compressed template is not kept.
const maxKept = 1 << 20

// maxPerScope is how many deployments a group or subscription remembers, as
// in Azure.
const maxPerScope = 800

// scopeKey is the part of the keys that is the same for all deployments of a
// scope; of a subscription's own the group is empty.
func scopeKey(subscription, group string) string {
	return store.Key(strings.ToLower(subscription), strings.ToLower(group))
}

func keyOf(id arm.ID) string {
	return scopeKey(id.Subscription(), id.Group()) + "/" + store.Key(strings.ToLower(id.NameOf("deployments")))
}

// load reads a deployment as it is to be seen.
func (h *Handler) load(ctx context.Context, id arm.ID) (record, bool, error) {
	r, ok, err := h.deployments.Load(ctx, keyOf(id))
	return h.seen(r), ok, err
}

// seen is a record as it is to be seen: a run whose lease is over has died.
func (h *Handler) seen(r record) record {
	if r.State == running && h.o.Now().After(r.Lease) {
		r.end(r.Lease, interrupted())
	}
	return r
}

func interrupted() *arm.ErrorDetail {
	return &arm.ErrorDetail{Code: "DeploymentInterrupted", Message: "The server stopped while the deployment ran. Run the deployment again: it continues to the same end."}
}

// end closes a record.
func (r *record) end(at time.Time, e *arm.ErrorDetail) {
	r.State, r.Ended, r.Error = succeeded, at, e
	if e != nil {
		r.State = failed
	}
}

// begin writes the record of a new run. It is refused while another run of
// the same deployment is under way.
func (h *Handler) begin(ctx context.Context, id arm.ID, r record, text []byte) (created bool, err error) {
	key := keyOf(id)
	err = h.s.Update(ctx, func(tx *store.Tx) error {
		old, had, err := h.deployments.Get(tx, key)
		if err != nil {
			return err
		}
		if created = !had; had {
			if h.seen(old).State == running {
				return active(id)
			}
			if old.Location != "" && !strings.EqualFold(old.Location, r.Location) {
				return fault.Conflict("InvalidDeploymentLocation", "Invalid deployment location '%s'. The deployment '%s' already exists in location '%s'.", r.Location, r.Name, old.Location)
			}
		} else {
			all, err := h.deployments.List(tx, scopeKey(id.Subscription(), id.Group())+"/", "", maxPerScope)
			if err != nil {
				return err
			}
			if len(all) >= maxPerScope {
				return fault.Conflict("DeploymentQuotaExceeded", "Creating the deployment '%s' would exceed the quota of '%d'. Please delete some deployments before creating a new one.", r.Name, maxPerScope)
			}
		}
		if err := h.deployments.Put(tx, key, r); err != nil {
			return err
		}
		h.templates.Delete(tx, key)
		return h.keep(tx, key, text)
	})
	return created, err
}

func (h *Handler) keep(tx *store.Tx, key string, text []byte) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if b.Len() > maxKept {
		return nil
	}
	return h.templates.Put(tx, key, kept{Text: b.Bytes()})
}

// text returns a kept template.
func (h *Handler) text(ctx context.Context, id arm.ID) (json.RawMessage, bool, error) {
	k, ok, err := h.templates.Load(ctx, keyOf(id))
	if err != nil || !ok {
		return nil, false, err
	}
	z, err := gzip.NewReader(bytes.NewReader(k.Text))
	if err != nil {
		return nil, false, err
	}
	b, err := io.ReadAll(io.LimitReader(z, 8*template.MaxSize))
	return b, err == nil, err
}

// save writes the record of a run, as long as the run still owns it: a group
// that is removed takes its deployments away, and a run that was thought dead
// may have been replaced.
func (h *Handler) save(ctx context.Context, id arm.ID, r *record) error {
	return h.s.Update(ctx, func(tx *store.Tx) error {
		old, ok, err := h.deployments.Get(tx, keyOf(id))
		if err != nil {
			return err
		}
		if !ok || old.Run != r.Run {
			return fault.Conflict("DeploymentCancelled", "The deployment '%s' was deleted or replaced while it ran.", r.Name)
		}
		return h.deployments.Put(tx, keyOf(id), *r)
	})
}

func active(id arm.ID) error {
	return fault.Conflict("DeploymentActive", "The deployment with resource id '%s' cannot be saved, because this would overwrite an existing deployment which is still active.", id.String())
}

// Resume closes the records of runs that died with the process. A server that
// shares its store with others must not call it: their runs may be alive, and
// leases tell.
func (h *Handler) Resume(ctx context.Context) error {
	all, err := h.deployments.Scan(ctx, "", "", 0)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Err != nil || e.Value.State != running {
			continue
		}
		err := h.s.Update(ctx, func(tx *store.Tx) error {
			r, ok, err := h.deployments.Get(tx, e.Key)
			if err != nil || !ok || r.Run != e.Value.Run || r.State != running {
				return err
			}
			r.end(h.o.Now().UTC(), interrupted())
			return h.deployments.Put(tx, e.Key, r)
		})
		if err != nil {
			return err
		}
		h.o.Log.InfoContext(ctx, "a deployment was interrupted", "deployment", e.Value.ID)
	}
	return nil
}

// find serves HEAD.
func (h *Handler) find(ctx context.Context, _ string, id arm.ID) (string, bool, error) {
	r, ok, err := h.load(ctx, id)
	return r.ID, ok, err
}

// listHeld lists what a group's removal takes away. Without an action to read
// them, the items are in no listing of resources: Azure does not count
// deployments among them.
func (h *Handler) listHeld(ctx context.Context, scope arm.ID) ([]arm.Resource, error) {
	prefix := scopeKey(scope.Subscription(), scope.Group()) + "/"
	if scope.Group() == "" {
		prefix = store.Key(scope.Subscription()) + "/" // those of all groups
	}
	entries, err := h.deployments.Scan(ctx, prefix, "", 0)
	if err != nil {
		return nil, err
	}
	var out []arm.Resource
	for _, e := range entries {
		if e.Err == nil && e.Value.Group != "" {
			out = append(out, arm.Resource{ID: e.Value.ID, Name: e.Value.Name, Type: typeDeployment})
		}
	}
	return out, nil
}

func (h *Handler) removeHeld(ctx context.Context, id arm.ID, _ string) error {
	return h.s.Update(ctx, func(tx *store.Tx) error {
		h.deployments.Delete(tx, keyOf(id))
		h.templates.Delete(tx, keyOf(id))
		return nil
	})
}

// scan lists the deployments of a scope. Damaged records are left out: the
// store has named them in the log.
func (h *Handler) scan(ctx context.Context, scope arm.ID) ([]record, error) {
	entries, err := h.deployments.Scan(ctx, scopeKey(scope.Subscription(), scope.Group())+"/", "", 0)
	if err != nil {
		return nil, err
	}
	var out []record
	for _, e := range entries {
		if e.Err == nil {
			out = append(out, h.seen(e.Value))
		}
	}
	return out, nil
}
