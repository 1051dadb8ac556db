package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// versionRoles is the version of the management API for roles.
const versionRoles = "2022-04-01"

// Graph calls the directory API, like Manage; path begins with a slash and
// has no version.
func (c *Client) Graph(ctx context.Context, method, path string, in, out any) error {
	graph := c.Operator.Endpoints.Graph
	return c.call(ctx, method, graph+"/v1.0"+path, graph, in, out)
}

// User is a person, as the directory API shows one.
type User struct {
	ID                string `json:"id"`
	UserPrincipalName string `json:"userPrincipalName"`
	DisplayName       string `json:"displayName"`
	AccountEnabled    bool   `json:"accountEnabled"`
}

// Users lists the users of the operator's tenant.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	all := []User{}
	path := "/users?$top=999&$select=id,userPrincipalName,displayName,accountEnabled"
	for path != "" {
		var page struct {
			Value    []User `json:"value"`
			NextLink string `json:"@odata.nextLink"`
		}
		if err := c.Graph(ctx, http.MethodGet, path, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		path = strings.TrimPrefix(page.NextLink, c.Operator.Endpoints.Graph+"/v1.0")
	}
	return all, nil
}

// AddUser makes a user, who is enabled.
func (c *Client) AddUser(ctx context.Context, name, displayName, password string) (u User, err error) {
	local, _, _ := strings.Cut(name, "@")
	in := map[string]any{
		"accountEnabled": true, "userPrincipalName": name, "displayName": displayName, "mailNickname": local,
		"passwordProfile": map[string]any{"password": password, "forceChangePasswordNextSignIn": false},
	}
	err = c.Graph(ctx, http.MethodPost, "/users", in, &u)
	u.AccountEnabled = err == nil
	return u, err
}

// UpdateUser sets properties of a user, found by name or id.
func (c *Client) UpdateUser(ctx context.Context, nameOrID string, properties map[string]any) error {
	return c.Graph(ctx, http.MethodPatch, userPath(nameOrID), properties, nil)
}

// DeleteUser removes a user, found by name or id.
func (c *Client) DeleteUser(ctx context.Context, nameOrID string) error {
	return c.Graph(ctx, http.MethodDelete, userPath(nameOrID), nil, nil)
}

func userPath(nameOrID string) string { return "/users/" + url.PathEscape(nameOrID) }

// RoleNamed finds the id of a role that can be assigned at a scope by its
// name or GUID; it is empty if there is none.
func (c *Client) RoleNamed(ctx context.Context, scope, name string) (string, error) {
	var found struct {
		Value []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"value"`
	}
	path := scopePath(scope) + "/providers/Microsoft.Authorization/roleDefinitions?api-version=" + versionRoles
	if uuid.Validate(name) != nil {
		path += "&$filter=" + url.QueryEscape("roleName eq '"+strings.ReplaceAll(name, "'", "''")+"'")
	}
	if err := c.Manage(ctx, http.MethodGet, path, nil, &found); err != nil {
		return "", err
	}
	for _, r := range found.Value {
		if uuid.Validate(name) != nil || strings.EqualFold(r.Name, name) {
			return r.ID, nil
		}
	}
	return "", nil
}

// AssignRole gives a principal a role at a scope.
func (c *Client) AssignRole(ctx context.Context, scope, roleID, principalID, principalType string) error {
	in := map[string]any{"properties": map[string]any{"roleDefinitionId": roleID, "principalId": principalID, "principalType": principalType}}
	path := scopePath(scope) + "/providers/Microsoft.Authorization/roleAssignments/" + uuid.NewString() + "?api-version=" + versionRoles
	return c.Manage(ctx, http.MethodPut, path, in, nil)
}

// scopePath is a scope as the beginning of a path; that of the tenant is empty.
func scopePath(scope string) string { return strings.TrimRight(scope, "/") }
