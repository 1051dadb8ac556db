package arm

import (
	"net/url"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/fault"
)

// The api-versions that are accepted, by provider, oldest first: those that
// published clients send. One shape is served for all of a type's versions;
// where Azure changed a default by version, the handler looks at it.
var (
	versionsResources = []string{
		"2014-04-01", "2014-04-01-preview", "2015-01-01", "2015-11-01", "2016-02-01", "2016-06-01", "2016-07-01", "2016-09-01",
		"2017-05-10", "2018-01-01", "2018-02-01", "2018-05-01", "2018-06-01", "2019-03-01", "2019-05-01", "2019-05-10",
		"2019-06-01", "2019-07-01", "2019-08-01", "2019-09-01", "2019-10-01", "2019-11-01", "2020-01-01", "2020-05-01",
		"2020-06-01", "2020-08-01", "2020-10-01", "2021-01-01", "2021-04-01", "2022-01-01", "2022-03-01-preview",
		"2022-05-01", "2022-09-01", "2022-12-01", "2023-03-01-preview", "2023-07-01", "2023-07-01-preview", "2024-03-01",
		"2024-07-01", "2024-08-01", "2024-11-01", "2025-03-01", "2025-04-01",
	}
	versionsKeyVault = []string{
		"2014-12-19-preview", "2015-06-01", "2016-10-01", "2018-02-14-preview", "2018-02-14", "2019-09-01", "2020-04-01-preview",
		"2021-04-01-preview", "2021-06-01-preview", "2021-10-01", "2021-11-01-preview", "2022-02-01-preview", "2022-07-01",
		"2022-11-01", "2023-02-01", "2023-07-01", "2023-08-01-preview", "2024-04-01-preview", "2024-11-01", "2024-12-01-preview",
		"2025-05-01", "2026-02-01",
	}
	versionsIdentity = []string{
		"2015-08-31-preview", "2018-11-30", "2021-09-30-preview", "2022-01-31-preview", "2023-01-31", "2023-07-31-preview",
		"2024-11-30", "2025-01-31-preview", "2025-05-31-preview",
	}
	versionsAuthorization = []string{
		"2014-04-01-preview", "2014-07-01-preview", "2014-10-01-preview", "2015-05-01-preview", "2015-06-01", "2015-07-01",
		"2016-07-01", "2017-05-01", "2017-10-01-preview", "2018-01-01-preview", "2018-05-01-preview", "2018-07-01-preview",
		"2018-07-01", "2018-09-01-preview", "2018-12-01-preview", "2019-04-01-preview", "2020-03-01-preview", "2020-04-01-preview",
		"2020-08-01-preview", "2020-10-01-preview", "2020-10-01", "2021-04-01-preview", "2022-04-01", "2022-05-01-preview",
		"2023-07-01-preview", "2024-07-01-preview",
	}
)

// rbacDefault is the first version of the vault API in which a new vault is
// under role assignments unless the request says otherwise.
const rbacDefault = "2026-02-01"

// parameter returns a query parameter, whose name is in any case. A repeated
// one is refused: two readers could take different ones.
func parameter(query url.Values, name string) (string, error) {
	var found []string
	for k, vs := range query {
		if strings.EqualFold(k, name) {
			found = append(found, vs...)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", fault.BadRequest("InvalidRequestContent", "The query parameter '%s' must not be repeated.", name)
}

// apiVersion returns the request's api-version, in lower case.
func apiVersion(query url.Values) (string, error) {
	v, err := parameter(query, "api-version")
	if err != nil {
		return "", err
	}
	if v == "" {
		return "", fault.BadRequest("MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	v = strings.ToLower(v)
	if !validVersion(v) {
		return "", fault.BadRequest("InvalidApiVersionParameter", "The api-version '%s' is invalid. It must be a date such as '2022-09-01' or '2022-01-31-preview'.", clip(v))
	}
	return v, nil
}

// validVersion reports whether v has the form yyyy-mm-dd or yyyy-mm-dd-word.
func validVersion(v string) bool {
	if len(v) < 10 || len(v) > 40 {
		return false
	}
	for i := range 10 {
		digit := v[i] >= '0' && v[i] <= '9'
		if (i == 4 || i == 7) && v[i] != '-' || i != 4 && i != 7 && !digit {
			return false
		}
	}
	if len(v) == 10 {
		return true
	}
	word := v[11:]
	return v[10] == '-' && word != "" && !strings.ContainsFunc(word, func(r rune) bool { return r < 'a' || r > 'z' })
}

// wrongVersion says which versions a type has.
func wrongVersion(id ID, supported []string, version string) error {
	list := slices.Clone(supported)
	slices.Reverse(list)
	all := strings.Join(list, ", ")
	if id.namespace() == "" || len(id.last().types) == 0 {
		return fault.BadRequest("InvalidApiVersionParameter", "The api-version '%s' is invalid. The supported versions are '%s'.", version, all)
	}
	return fault.BadRequest("NoRegisteredProviderFound", "No registered resource provider found for API version '%s' for type '%s'. The supported api-versions are '%s'.",
		version, clip(strings.Join(id.last().types, "/")), all)
}
