package arm

import (
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// locations are the names that Azure's public cloud gives its regions, with
// the names for people; a resource's location is one of them, so that
// templates and scripts written for Azure keep theirs. Nothing depends on
// which one it is.
var locations = [...][2]string{
	{"australiacentral", "Australia Central"}, {"australiacentral2", "Australia Central 2"}, {"australiaeast", "Australia East"},
	{"australiasoutheast", "Australia Southeast"}, {"austriaeast", "Austria East"}, {"belgiumcentral", "Belgium Central"},
	{"brazilsouth", "Brazil South"}, {"brazilsoutheast", "Brazil Southeast"}, {"canadacentral", "Canada Central"},
	{"canadaeast", "Canada East"}, {"centralindia", "Central India"}, {"centralus", "Central US"}, {"chilecentral", "Chile Central"},
	{"denmarkeast", "Denmark East"}, {"eastasia", "East Asia"}, {"eastus", "East US"}, {"eastus2", "East US 2"},
	{"francecentral", "France Central"}, {"francesouth", "France South"}, {"germanynorth", "Germany North"},
	{"germanywestcentral", "Germany West Central"}, {"indonesiacentral", "Indonesia Central"}, {"israelcentral", "Israel Central"},
	{"italynorth", "Italy North"}, {"japaneast", "Japan East"}, {"japanwest", "Japan West"}, {"koreacentral", "Korea Central"},
	{"koreasouth", "Korea South"}, {"malaysiawest", "Malaysia West"}, {"mexicocentral", "Mexico Central"},
	{"newzealandnorth", "New Zealand North"}, {"northcentralus", "North Central US"}, {"northeurope", "North Europe"},
	{"norwayeast", "Norway East"}, {"norwaywest", "Norway West"}, {"polandcentral", "Poland Central"}, {"qatarcentral", "Qatar Central"},
	{"southafricanorth", "South Africa North"}, {"southafricawest", "South Africa West"}, {"southcentralus", "South Central US"},
	{"southeastasia", "Southeast Asia"}, {"southindia", "South India"}, {"spaincentral", "Spain Central"},
	{"swedencentral", "Sweden Central"}, {"swedensouth", "Sweden South"}, {"switzerlandnorth", "Switzerland North"},
	{"switzerlandwest", "Switzerland West"}, {"uaecentral", "UAE Central"}, {"uaenorth", "UAE North"}, {"uksouth", "UK South"},
	{"ukwest", "UK West"}, {"westcentralus", "West Central US"}, {"westeurope", "West Europe"}, {"westindia", "West India"},
	{"westus", "West US"}, {"westus2", "West US 2"}, {"westus3", "West US 3"},
}

// location returns the canonical name of a region given as "westeurope" or
// "West Europe", in any case. ok is false for others.
func location(s string) (name string, ok bool) {
	name = strings.ToLower(strings.ReplaceAll(s, " ", ""))
	for _, l := range &locations {
		if l[0] == name {
			return name, true
		}
	}
	return "", false
}

func locationNames() []string {
	all := make([]string, len(locations))
	for i, l := range &locations {
		all[i] = l[0]
	}
	return all
}

// checkLocation returns the canonical location of a new resource of a type.
func checkLocation(given, resourceType string) (string, error) {
	if given == "" {
		return "", fault.BadRequest("LocationRequired", "The location property is required for this definition.")
	}
	name, ok := location(given)
	if ok {
		return name, nil
	}
	all := strings.Join(locationNames(), ",")
	if strings.EqualFold(resourceType, typeGroup) {
		return "", fault.BadRequest("LocationNotAvailableForResourceGroup", "The provided location '%s' is not available for resource group. List of available regions is '%s'.", clip(given), all)
	}
	return "", fault.BadRequest("LocationNotAvailableForResourceType", "The provided location '%s' is not available for resource type '%s'. List of available regions for the resource type is '%s'.", clip(given), resourceType, all)
}

// sameLocation checks that a request for an existing resource does not name
// another location: resources do not move. Naming none is fine.
func sameLocation(id ID, have, given string) error {
	if given == "" {
		return nil
	}
	if name, ok := location(given); ok && strings.EqualFold(name, have) {
		return nil
	}
	if strings.EqualFold(id.Type(), typeGroup) {
		return fault.Conflict("InvalidResourceGroupLocation", "Invalid resource group location '%s'. The Resource group already exists in location '%s'.", clip(given), have)
	}
	return fault.Conflict("InvalidResourceLocation", "The resource '%s' already exists in location '%s' in resource group '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.",
		clip(id.Name()), have, clip(id.Group()), clip(given))
}

type wireLocation struct {
	ID                  string `json:"id"`
	Name                string `json:"name"`
	Type                string `json:"type"`
	DisplayName         string `json:"displayName"`
	RegionalDisplayName string `json:"regionalDisplayName"`
	Metadata            struct {
		RegionType string `json:"regionType"`
	} `json:"metadata"`
}

func (h *Handler) listLocations(w http.ResponseWriter, r *http.Request, q *Request) error {
	out := wireList[wireLocation]{}
	for _, l := range &locations {
		one := wireLocation{
			ID: "/subscriptions/" + q.ID.Subscription() + "/locations/" + l[0], Name: l[0], Type: "Region",
			DisplayName: l[1], RegionalDisplayName: l[1],
		}
		one.Metadata.RegionType = "Physical"
		out.Value = append(out.Value, one)
	}
	return web.WriteJSON(w, http.StatusOK, out)
}
