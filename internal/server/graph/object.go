package graph

import (
	"github.com/podkey/podkey/internal/server/directory"
)

// object is one thing of the directory: at most one member is set.
type object struct {
	app  *directory.Application
	sp   *directory.ServicePrincipal
	user *directory.User
}

func (o object) id() string {
	switch {
	case o.app != nil:
		return o.app.ObjectID
	case o.sp != nil:
		return o.sp.ObjectID
	case o.user != nil:
		return o.user.ObjectID
	}
	return ""
}

// path is the object as decisions and audit lines name it; the root of the
// tenant if it is none.
func (o object) path() string {
	const provider = "/providers/Microsoft.Directory/"
	switch {
	case o.app != nil:
		return provider + "applications/" + o.app.ObjectID
	case o.sp != nil:
		return provider + "servicePrincipals/" + o.sp.ObjectID
	case o.user != nil:
		return provider + "users/" + o.user.ObjectID
	}
	return "/"
}

// owners are the principals that may change the object because it is theirs.
// Nobody owns a person, nor what belongs to a managed identity.
func (o object) owners() []string {
	switch {
	case o.app != nil:
		return o.app.Owners
	case o.sp != nil && o.sp.Kind == directory.KindApplication:
		return o.sp.Owners
	}
	return nil
}

// entity is the object as an answer shows it, with its type.
func (o object) entity(c *call) (entity, error) {
	var e entity
	var err error
	switch {
	case o.app != nil:
		e, err = applications.show(c, o.app)
	case o.sp != nil:
		e, err = servicePrincipals.show(c, o.sp)
	default:
		e, err = users.show(c, o.user)
	}
	if err != nil {
		return nil, err
	}
	e["@odata.type"] = o.odataType()
	return e, nil
}

func (o object) odataType() string {
	switch {
	case o.app != nil:
		return "#microsoft.graph.application"
	case o.sp != nil:
		return "#microsoft.graph.servicePrincipal"
	}
	return "#microsoft.graph.user"
}

// pathApplication finds the application that the path's first key names, by
// its id or as applications(appId='...').
func pathApplication(c *call) (object, error) {
	k := c.keys[0]
	if k.alt == "" {
		a, ok, err := c.Directory.Application(c.ctx, k.text)
		if err != nil {
			return object{}, err
		}
		if ok && a.TenantID == c.tenant {
			return object{app: &a}, nil
		}
		return object{}, notFound(k.text)
	}
	found, err := byAppID(c, k, c.Directory.ApplicationsFor)
	if err != nil {
		return object{}, err
	}
	for i := range found {
		if sameID(found[i].AppID, k.text) { // not by an identifier URI
			return object{app: &found[i]}, nil
		}
	}
	return object{}, notFound(k.text)
}

// pathPrincipal is [pathApplication] for service principals.
func pathPrincipal(c *call) (object, error) {
	k := c.keys[0]
	if k.alt == "" {
		p, ok, err := c.Directory.ServicePrincipal(c.ctx, k.text)
		if err != nil {
			return object{}, err
		}
		if ok && p.TenantID == c.tenant {
			return object{sp: &p}, nil
		}
		return object{}, notFound(k.text)
	}
	found, err := byAppID(c, k, c.Directory.ServicePrincipalsFor)
	if err != nil {
		return object{}, err
	}
	for i := range found {
		if sameID(found[i].AppID, k.text) {
			return object{sp: &found[i]}, nil
		}
	}
	return object{}, notFound(k.text)
}

// pathUser finds the user that the path's first key names, by id or user
// principal name.
func pathUser(c *call) (object, error) {
	k := c.keys[0]
	if k.alt != "" {
		return object{}, noSegment(k.alt)
	}
	u, ok, err := c.Directory.User(c.ctx, c.tenant, k.text)
	if err != nil {
		return object{}, err
	}
	if !ok {
		return object{}, notFound(k.text)
	}
	return object{user: &u}, nil
}

// pathAny finds what the path's first key names among all kinds.
func pathAny(c *call) (object, error) {
	k := c.keys[0]
	if k.alt != "" {
		return object{}, noSegment(k.alt)
	}
	o, ok, err := c.find(k.text)
	if err == nil && !ok {
		err = notFound(k.text)
	}
	return o, err
}

// me is the caller, who must be a person: the request means nothing else.
func me(c *call) (object, error) {
	u, ok, err := c.Directory.User(c.ctx, c.tenant, c.caller.ObjectID)
	if err != nil {
		return object{}, err
	}
	if !ok {
		return object{}, badRequest("/me request is only valid with delegated authentication flow.")
	}
	return object{user: &u}, nil
}

// find finds an object of the caller's tenant by its id.
func (c *call) find(id string) (object, bool, error) {
	canonical, ok := directory.CanonicalID(id)
	if !ok {
		return object{}, false, nil
	}
	if p, ok, err := c.Directory.ServicePrincipal(c.ctx, canonical); err != nil || ok && p.TenantID == c.tenant {
		return object{sp: &p}, err == nil, err
	}
	if u, ok, err := c.Directory.User(c.ctx, c.tenant, canonical); err != nil || ok {
		return object{user: &u}, err == nil, err
	}
	if a, ok, err := c.Directory.Application(c.ctx, canonical); err != nil || ok && a.TenantID == c.tenant {
		return object{app: &a}, err == nil, err
	}
	return object{}, false, nil
}
