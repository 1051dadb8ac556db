package arm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// group is a resource group as it is stored.
type group struct {
	SubscriptionID string            `json:"subscriptionId"`
	Name           string            `json:"name"` // in display case
	Location       string            `json:"location"`
	ManagedBy      string            `json:"managedBy,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"`
	// Deleting is set first of all when the group is removed. Nothing can be
	// made in it any more, and only the removal's end takes the record away.
	Deleting  bool      `json:"deleting,omitempty"`
	DeletedBy string    `json:"deletedBy,omitempty"` // object id of who removes it
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
}

func (g *group) id() string {
	return "/subscriptions/" + g.SubscriptionID + "/resourceGroups/" + g.Name
}

func groupKey(subscription, name string) string {
	return store.Key(subscription, strings.ToLower(name))
}

// group finds the resource group that an id lies in or names.
func (h *Handler) group(ctx context.Context, id ID) (group, bool, error) {
	return h.groups.Load(ctx, groupKey(id.Subscription(), id.Group()))
}

// groupsOf lists the groups of a subscription. Damaged records are left out:
// the store named them in the log, and the rest is served.
func (h *Handler) groupsOf(ctx context.Context, subscription string) ([]group, error) {
	entries, err := h.groups.Scan(ctx, store.Key(subscription)+"/", "", 0)
	if err != nil {
		return nil, err
	}
	var all []group
	for _, e := range entries {
		if e.Err == nil {
			all = append(all, e.Value)
		}
	}
	return all, nil
}

// groupChange is what a request asks of a group. Nil members stay as they
// are.
type groupChange struct {
	location  string // "" names none
	managedBy *string
	tags      *map[string]string
}

// putGroup creates a group or changes an existing one.
func (h *Handler) putGroup(ctx context.Context, id ID, c groupChange) (g group, created bool, err error) {
	err = h.s.Update(ctx, func(tx *store.Tx) error {
		key := groupKey(id.Subscription(), id.Group())
		var ok bool
		if g, ok, err = h.groups.Get(tx, key); err != nil {
			return err
		}
		if created = !ok; created {
			if g, err = h.newGroup(id, c); err != nil {
				return err
			}
		} else if err := sameLocation(id, g.Location, c.location); err != nil {
			return err
		}
		if err := h.changeGroup(&g, c); err != nil {
			return err
		}
		return h.groups.Put(tx, key, g)
	})
	return g, created, err
}

func (h *Handler) newGroup(id ID, c groupChange) (group, error) {
	if !validGroupName(id.Group()) {
		return group{}, fault.BadRequest("InvalidResourceGroup", "The provided resource group name '%s' is invalid. It must have 1 to 90 letters, digits, '-', '.', '(', ')' or '_', and must not end in a dot.", clip(id.Group()))
	}
	where, err := checkLocation(c.location, typeGroup)
	return group{SubscriptionID: id.Subscription(), Name: id.Group(), Location: where, Created: h.o.Now().UTC()}, err
}

// patchGroup changes an existing group.
func (h *Handler) patchGroup(ctx context.Context, id ID, c groupChange) (g group, err error) {
	err = h.s.Update(ctx, func(tx *store.Tx) error {
		key := groupKey(id.Subscription(), id.Group())
		var ok bool
		if g, ok, err = h.groups.Get(tx, key); err != nil {
			return err
		}
		if !ok {
			return notFound(id)
		}
		if err := h.changeGroup(&g, c); err != nil {
			return err
		}
		return h.groups.Put(tx, key, g)
	})
	return g, err
}

func (h *Handler) changeGroup(g *group, c groupChange) error {
	if g.Deleting {
		return beingDeleted(g.Name)
	}
	if c.tags != nil {
		if err := checkTags(*c.tags); err != nil {
			return err
		}
		g.Tags = *c.tags
	}
	if c.managedBy != nil {
		if len(*c.managedBy) > maxIDLength {
			return fault.BadRequest(codeContent, "The managedBy property is too long.")
		}
		g.ManagedBy = *c.managedBy
	}
	g.Updated = h.o.Now().UTC()
	return nil
}

// removeGroup removes a group with all that it holds. Each step is a
// transaction of its own, and this is their order:
//
//  1. The group is marked as being deleted. From here on nothing can be made
//     in it; what is being made meanwhile is undone by its own request
//     (see stillThere).
//  2. Every resource in it goes, as by its own DELETE: an identity with its
//     service principal and federated credentials in one transaction, a vault
//     into the soft-deleted state, each after its role assignments.
//  3. The record goes, with the role assignments at the group and at anything
//     below it.
//
// A crash between two steps leaves a group that is marked: it is seen with
// the state Deleting, its resources are there or not, and none of its role
// assignments speaks for a resource that is gone. Repeating the removal, by
// the client or by [Handler.Resume], starts over at step 2 and reaches the
// same end, since each step leaves alone what is gone already.
func (h *Handler) removeGroup(ctx context.Context, tenant string, id ID, by string) (existed bool, err error) {
	marked, existed, err := h.markGroup(ctx, id, by)
	if err != nil || !existed {
		return existed, err
	}
	// Nobody gains by half a removal because the client did not wait.
	ctx = context.WithoutCancel(ctx)
	for {
		held, err := h.resources(ctx, id)
		if err != nil {
			return true, err
		}
		// A removal of the same group at the same time may have come to its
		// end, and the group have been made anew: that one is not ours.
		if same, err := h.isMarked(ctx, id, &marked); err != nil || !same {
			return true, err
		}
		if len(held) == 0 {
			break
		}
		for _, res := range held {
			if err := h.removeResource(ctx, &res, marked.DeletedBy); err != nil {
				return true, err
			}
		}
	}
	return true, h.s.Update(ctx, func(tx *store.Tx) error {
		key := groupKey(id.Subscription(), id.Group())
		g, ok, err := h.groups.Get(tx, key)
		if err != nil || !ok || !g.Deleting || !g.Created.Equal(marked.Created) {
			return err
		}
		h.groups.Delete(tx, key)
		h.o.RBAC.DeleteScopeIn(tx, tenant, id.Key())
		return nil
	})
}

func (h *Handler) removeResource(ctx context.Context, res *Resource, by string) error {
	id, err := ParseID(res.ID)
	if err != nil {
		return fmt.Errorf("remove %s: %w", res.ID, err)
	}
	rt := h.reg.find(id)
	if rt == nil || rt.Delete == nil {
		return fmt.Errorf("remove %s: its type cannot be removed", res.ID)
	}
	return rt.Delete(ctx, id, by)
}

// markGroup is step 1 of removeGroup.
func (h *Handler) markGroup(ctx context.Context, id ID, by string) (g group, existed bool, err error) {
	err = h.s.Update(ctx, func(tx *store.Tx) error {
		key := groupKey(id.Subscription(), id.Group())
		if g, existed, err = h.groups.Get(tx, key); err != nil || !existed || g.Deleting {
			return err
		}
		g.Deleting, g.DeletedBy, g.Updated = true, by, h.o.Now().UTC()
		return h.groups.Put(tx, key, g)
	})
	return g, existed, err
}

func (h *Handler) isMarked(ctx context.Context, id ID, marked *group) (bool, error) {
	g, ok, err := h.group(ctx, id)
	return ok && g.Deleting && g.Created.Equal(marked.Created), err
}

// Resume completes the removals of resource groups that a crash interrupted,
// and the creations in them that it kept from undoing themselves. The server
// calls it once after the store has loaded.
func (h *Handler) Resume(ctx context.Context) error {
	if err := h.resumeRemovals(ctx); err != nil {
		return err
	}
	return h.removeOrphans(ctx)
}

func (h *Handler) resumeRemovals(ctx context.Context) error {
	entries, err := h.groups.Scan(ctx, "", "", 0)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Err != nil || !e.Value.Deleting {
			continue
		}
		id := mustParse(e.Value.id())
		sub, _, err := h.subscriptionOf(ctx, id)
		if err != nil {
			return err
		}
		if _, err := h.removeGroup(ctx, sub.TenantID, id, e.Value.DeletedBy); err != nil {
			return err
		}
		h.o.Log.InfoContext(ctx, "completed the removal of a resource group", "group", e.Value.id())
	}
	return nil
}
