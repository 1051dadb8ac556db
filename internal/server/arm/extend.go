package arm

import "context"

// What resource types of other packages need of the plane, so that they judge
// and word things as its own types do.

// Group returns the id of the resource group that the request is for, in
// display case. Errors are faults of kind Missing.
func (q *Request) Group(ctx context.Context) (ID, error) {
	display, err := q.mustExist(ctx, ID{chains: q.ID.chains[:1:1]})
	if err != nil {
		return ID{}, err
	}
	return mustParse(display), nil
}

// StillThere undoes a creation whose resource group went away meanwhile: the
// last thing that a handler does before it answers that it created something.
func (q *Request) StillThere(ctx context.Context, undo func(context.Context) error) error {
	return q.stillThere(ctx, q.ID.Scope(), undo)
}

// CheckTags applies Azure's rules for the tags of a resource.
func CheckTags(tags map[string]string) error { return checkTags(tags) }

// CheckLocation returns the canonical location of a new resource of a type.
func CheckLocation(given, resourceType string) (string, error) {
	return checkLocation(given, resourceType)
}

// SameLocation checks that a request for an existing resource names its
// location, or none.
func SameLocation(id ID, have, given string) error { return sameLocation(id, have, given) }

// BadName refuses a resource's name; rule says what it must have.
func BadName(resourceType, name, rule string) error { return badName(resourceType, name, rule) }

// NotFound says that an item does not exist.
func NotFound(id ID) error { return notFound(id) }
