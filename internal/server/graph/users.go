package graph

import (
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/odata"
	"github.com/podkey/podkey/internal/server/directory"
)

var users = kind[directory.User]{
	name: "users",
	id:   func(u *directory.User) string { return u.ObjectID },
	rules: odata.Rules{
		Properties: map[string]odata.Property{
			"id":                {Kind: odata.Text, Ops: "eq in"},
			"userprincipalname": {Kind: odata.Text, Ops: "eq ne in"},
			"displayname":       {Kind: odata.Text, Ops: "eq ne in null"},
			"mailnickname":      {Kind: odata.Text, Ops: "eq ne in null"},
			"mail":              {Kind: odata.Text, Ops: "eq ne in null"},
			"usertype":          {Kind: odata.Text, Ops: "eq ne in"},
			"accountenabled":    {Kind: odata.Bool, Ops: "eq ne"},
		},
		Functions: map[string][]string{
			"startswith": {"displayname,text", "userprincipalname,text", "mailnickname,text", "mail,text"},
			"endswith":   {"userprincipalname,text", "mail,text"},
		},
		Not: true,
	},
	property: func(_ *call, u *directory.User, name string) odata.Value {
		switch name {
		case "id":
			return odata.OfText(u.ObjectID)
		case "userprincipalname":
			return odata.OfText(u.UserPrincipalName)
		case "mailnickname":
			return ofText(nickname(u))
		case "mail":
			return odata.Value{}
		case "usertype":
			return odata.OfText("Member")
		case "accountenabled":
			return odata.OfBool(u.Enabled)
		}
		return ofText(u.DisplayName)
	},
	show: showUser,
	brief: []string{
		"businessPhones", "displayName", "givenName", "id", "jobTitle", "mail", "mobilePhone", "officeLocation", "preferredLanguage",
		"surname", "userPrincipalName",
	},
	walk: func(c *call, after string, visit func(*directory.User) bool) error {
		return c.Directory.WalkUsers(c.ctx, c.tenant, after, visit)
	},
	lookup: map[string]func(*call, string) ([]directory.User, error){
		"id":                func(c *call, id string) ([]directory.User, error) { return c.userNamed(id, true) },
		"userprincipalname": func(c *call, name string) ([]directory.User, error) { return c.userNamed(name, false) },
		"displayname": func(c *call, name string) ([]directory.User, error) {
			return c.Directory.UsersNamed(c.ctx, c.tenant, name)
		},
	},
}

// userNamed finds a user by an id, or by a name that is none.
func (c *call) userNamed(name string, byID bool) ([]directory.User, error) {
	if _, isID := directory.CanonicalID(name); isID != byID {
		return nil, nil
	}
	u, ok, err := c.Directory.User(c.ctx, c.tenant, name)
	return oneIf(u, ok), err
}

// nickname is the part before the @ unless another one was chosen.
func nickname(u *directory.User) string {
	if u.MailNickname != "" {
		return u.MailNickname
	}
	local, _, _ := strings.Cut(u.UserPrincipalName, "@")
	return local
}

func showUser(_ *call, u *directory.User) (entity, error) {
	return entity{
		"id": u.ObjectID, "userPrincipalName": u.UserPrincipalName, "displayName": orNull(u.DisplayName),
		"businessPhones": []any{}, "givenName": nil, "jobTitle": nil, "mail": nil, "mobilePhone": nil, "officeLocation": nil,
		"preferredLanguage": nil, "surname": nil, "accountEnabled": u.Enabled, "mailNickname": orNull(nickname(u)), "userType": "Member",
		"createdDateTime": instant(u.Created), "deletedDateTime": nil, "lastPasswordChangeDateTime": instant(u.PasswordChanged),
	}, nil
}

// userFields are the properties of a user that a caller sets. password stays
// nil if the body has none.
func userFields(u *directory.User, password **string) fields {
	f := fields{
		"displayName":    required(&u.DisplayName),
		"mailNickname":   required(&u.MailNickname),
		"accountEnabled": flag(&u.Enabled),
		"userType":       only("Member", "there are no guests"),
		"passwordProfile": nested(fields{
			"password":                             into(password),
			"forceChangePasswordNextSignIn":        only(false, "the sign-in page does not change passwords"),
			"forceChangePasswordNextSignInWithMfa": only(false, "the sign-in page does not change passwords"),
		}),
	}
	for _, name := range []string{
		"businessPhones", "givenName", "jobTitle", "mail", "mobilePhone", "officeLocation", "preferredLanguage", "surname",
		"department", "usageLocation", "otherMails", "onPremisesImmutableId", "passwordPolicies",
	} {
		f[name] = empty
	}
	for _, name := range []string{"id", "userPrincipalName", "createdDateTime", "deletedDateTime", "lastPasswordChangeDateTime"} {
		f[name] = readOnly
	}
	return f
}

func createUser(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	u := directory.User{TenantID: c.tenant}
	var password *string
	f := userFields(&u, &password)
	f["userPrincipalName"] = required(&u.UserPrincipalName)
	if err := b.set(f); err != nil {
		return err
	}
	switch {
	case u.UserPrincipalName == "" || u.DisplayName == "":
		return badRequest("Properties 'userPrincipalName' and 'displayName' are required.")
	case password == nil:
		return badRequest("Property 'passwordProfile' with a 'password' is required.")
	case !u.Enabled:
		return badRequest("Property 'accountEnabled' must be true: disable the user afterwards.")
	}
	if u, err = c.Directory.CreateUser(c.ctx, u, *password); err != nil {
		return err
	}
	c.w.Header().Set("Location", c.names.Graph+"/"+c.version+"/users/"+u.ObjectID)
	return users.one(c, http.StatusCreated, &u)
}

func getUser(c *call) error { return users.one(c, http.StatusOK, c.object.user) }

func patchUser(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	var password *string
	if err := b.set(userFields(new(directory.User), &password)); err != nil {
		return err
	}
	secret := ""
	if password != nil {
		if secret = *password; secret == "" {
			return badRequest("The password must not be empty.")
		}
	}
	if _, err := c.Directory.UpdateUser(c.ctx, c.object.user.ObjectID, secret, func(u *directory.User) error {
		return b.set(userFields(u, new(*string)))
	}); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func deleteUser(c *call) error {
	existed, err := c.Directory.DeleteUser(c.ctx, c.object.user.ObjectID)
	if err == nil && !existed {
		err = notFound(c.object.user.ObjectID)
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
