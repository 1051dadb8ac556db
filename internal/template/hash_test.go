package template

import "testing"

// The expected values are known results of Azure's own functions.
func TestHashesAreAzures(t *testing.T) {
	for in, want := range map[string]string{
		"tyeth":       "zcztcwvu6iyg6",
		"hello-world": "a7wkljktk6wne",
		"/subscriptions/3c7f956b-55ee-4686-9d30-da1eb631dc59/resourceGroups/rg-devopsshieldek010dev": "fd63l2gacbtca",
	} {
		if got := uniqueString(in); got != want {
			t.Errorf("uniqueString(%q) = %s, want %s", in, got, want)
		}
	}
}
