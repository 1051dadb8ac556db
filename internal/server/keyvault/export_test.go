package keyvault

import (
	"context"
	"maps"
	"slices"
)

// APIVersionsForTest lists the versions that clients may ask for.
func APIVersionsForTest() []string { return slices.Sorted(maps.Keys(apiVersions)) }

// DeletedSecretForTest reads the value of a deleted secret, which the data
// plane does not show.
func (v *Vaults) DeletedSecretForTest(ctx context.Context, vault, name string) (string, error) {
	found, _, err := v.Get(ctx, vault)
	if err != nil {
		return "", err
	}
	d, err := v.deletedSecretByName(ctx, &found, name)
	return d.Value, err
}
