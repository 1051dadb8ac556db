package template

import (
	"strings"
	"testing"
)

// TestExpressions gives the results that Azure documents.
func TestExpressions(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`plain`, `"plain"`},
		{`[[escaped]`, `"[escaped]"`},
		{`[not closed`, `"[not closed"`},
		{`['it''s']`, `"it's"`},
		{`[ concat ( 'a' , 'b' ) ]`, `"ab"`},
		{`[concat('a', 1, true())]`, `"a1True"`},
		{`[CONCAT(createArray(1), createArray('b'))]`, `[1,"b"]`},
		{`[-5]`, `-5`},
		{`[add(2, mul(3, -4))]`, `-10`},
		{`[div(8, 3)]`, `2`}, {`[mod(7, 3)]`, `1`}, {`[sub(7, 3)]`, `4`},
		{`[min(3, 1, 2)]`, `1`}, {`[max(createArray(3, 9, 2))]`, `9`},
		{`[int('42')]`, `42`}, {`[bool('TRUE')]`, `true`}, {`[bool(0)]`, `false`}, {`[string(createObject('a', 1))]`, `"{\"a\":1}"`},
		{`[json('{"a": [1, null]}').a]`, `[1,null]`}, {`[null()]`, `null`},
		{`[if(equals(1, 1), 'yes', fail('no'))]`, `"yes"`},
		{`[and(true(), false(), fail('never'))]`, `false`}, {`[or(false(), true())]`, `true`}, {`[not(false())]`, `true`},
		{`[coalesce(null(), parameters('obj').a, fail('never'))]`, `1`},
		{`[equals(createObject('a', 1), json('{"a": 1}'))]`, `true`}, {`[equals('a', 'A')]`, `false`},
		{`[less(1, 2)]`, `true`}, {`[greaterOrEquals('b', 'a')]`, `true`}, {`[greater(1, 2)]`, `false`}, {`[lessOrEquals(2, 2)]`, `true`},
		{`[toLower('AbC')]`, `"abc"`}, {`[toUpper('AbC')]`, `"ABC"`}, {`[trim('  a ')]`, `"a"`},
		{`[substring('one two', 4)]`, `"two"`}, {`[substring('one two', 0, 3)]`, `"one"`},
		{`[replace('a-b-c', '-', '')]`, `"abc"`},
		{`[split('a,b;c', createArray(',', ';'))]`, `["a","b","c"]`}, {`[split('a,b', ',')]`, `["a","b"]`},
		{`[join(createArray('a', 'b', 1), '-')]`, `"a-b-1"`},
		{`[padLeft('7', 3, '0')]`, `"007"`}, {`[padLeft(7, 3)]`, `"  7"`},
		{`[startsWith('Hello', 'he')]`, `true`}, {`[endsWith('Hello', 'LO')]`, `true`},
		{`[indexOf('test', 'T')]`, `0`}, {`[lastIndexOf('test', 't')]`, `3`}, {`[indexOf(parameters('list'), 'y')]`, `1`},
		{`[format('{0}-{1:D3}|{2,4}|{3}{{}}', 'a', 7, 'b', true())]`, `"a-007|   b|True{}"`}, {`[format('{0:N0} {1:X}', 1234567, 255)]`, `"1,234,567 FF"`},
		{`[length(parameters('list'))]`, `3`}, {`[length('four')]`, `4`}, {`[empty('')]`, `true`}, {`[empty(parameters('obj'))]`, `false`},
		{`[contains(parameters('obj'), 'b')]`, `true`}, {`[contains(parameters('list'), 'q')]`, `false`}, {`[contains('abc', 'bc')]`, `true`},
		{`[first(parameters('list'))]`, `"x"`}, {`[last('abc')]`, `"c"`}, {`[first(createArray())]`, `null`},
		{`[skip(parameters('list'), 1)]`, `["y","z"]`}, {`[take('abc', 2)]`, `"ab"`}, {`[take(parameters('list'), 9)]`, `["x","y","z"]`},
		{`[range(5, 3)]`, `[5,6,7]`}, {`[array('a')]`, `["a"]`}, {`[flatten(createArray(createArray(1), createArray(2)))]`, `[1,2]`},
		{`[union(createArray(1, 2), createArray(2, 3))]`, `[1,2,3]`},
		{`[union(createObject('a', createObject('x', 1)), createObject('a', createObject('y', 2), 'b', 3))]`, `{"a":{"x":1,"y":2},"b":3}`},
		{`[intersection(createArray(1, 2, 3), createArray(3, 2))]`, `[2,3]`}, {`[intersection(createObject('a', 1, 'b', 2), createObject('a', 1, 'b', 3))]`, `{"a":1}`},
		{`[items(createObject('b', 1, 'a', 2))]`, `[{"key":"a","value":2},{"key":"b","value":1}]`}, {`[objectKeys(parameters('obj'))]`, `["B","a"]`},
		{`[tryGet(parameters('obj'), 'b', 'c', 1)]`, `2`}, {`[tryGet(parameters('obj'), 'none', 'c')]`, `null`},
		{`[parameters('obj').b.C[1]]`, `2`}, {`[parameters('obj')['b'].c[add(1, 1)]]`, `3`}, {`[parameters('obj').?none.?more]`, `null`},
		{`[map(range(0, 3), lambda('i', mul(lambdaVariables('i'), 2)))]`, `[0,2,4]`},
		{`[map(parameters('list'), lambda('v', 'i', format('{0}{1}', lambdaVariables('v'), lambdaVariables('i'))))]`, `["x0","y1","z2"]`},
		{`[filter(range(0, 5), lambda('i', greater(lambdaVariables('i'), 2)))]`, `[3,4]`},
		{`[reduce(range(1, 4), 0, lambda('a', 'b', add(lambdaVariables('a'), lambdaVariables('b'))))]`, `10`},
		{`[sort(createArray(3, 1, 2), lambda('a', 'b', less(lambdaVariables('a'), lambdaVariables('b'))))]`, `[1,2,3]`},
		{`[toObject(parameters('list'), lambda('e', lambdaVariables('e')), lambda('e', length(lambdaVariables('e'))))]`, `{"x":1,"y":1,"z":1}`},
		{`[map(range(0, 2), lambda('a', map(range(0, 2), lambda('b', add(mul(lambdaVariables('a'), 10), lambdaVariables('b'))))))]`, `[[0,1],[10,11]]`},
		{`[groupBy(createArray('ab', 'ac', 'b'), lambda('s', first(lambdaVariables('s'))))]`, `{"a":["ab","ac"],"b":["b"]}`},
		{`[mapValues(createObject('a', 1), lambda('v', add(lambdaVariables('v'), 1)))]`, `{"a":2}`}, {`[shallowMerge(createArray(createObject('a', 1), createObject('a', 2)))]`, `{"a":2}`},
		{`[base64('one')]`, `"b25l"`}, {`[base64ToString('b25l')]`, `"one"`}, {`[base64ToJson(base64('{"a": 1}')).a]`, `1`},
		{`[dataUri('Hello')]`, `"data:text/plain;charset=utf8;base64,SGVsbG8="`}, {`[dataUriToString('data:;base64,SGVsbG8=')]`, `"Hello"`},
		{`[uri('http://contoso.org/firstpath/x', 'myscript.sh')]`, `"http://contoso.org/firstpath/myscript.sh"`},
		{`[uriComponent('http://a/b c')]`, `"http%3A%2F%2Fa%2Fb%20c"`}, {`[uriComponentToString('a%2Fb')]`, `"a/b"`},
		{`[dateTimeAdd('2020-04-07T14:53:14Z', 'P3Y')]`, `"2023-04-07T14:53:14Z"`}, {`[dateTimeAdd('2020-04-07 14:53:14Z', '-PT1H30M', 'yyyy/M/d h:mm tt')]`, `"2020/4/7 1:23 PM"`}, {`[dateTimeAdd('2020-04-07', 'P1D', 'yyyy年M月d日 \年é')]`, `"2020年4月8日 年é"`},
		{`[dateTimeToEpoch('1970-01-02T00:00:00Z')]`, `86400`}, {`[dateTimeFromEpoch(86400)]`, `"1970-01-02T00:00:00Z"`},
		{`[parameters('now')]`, `"2026-11-22 14:05:06"`},
		{`[my.hail('you')]`, `"hail you"`},
		{`[resourceGroup().tags.env]`, `"test"`}, {`[subscription().tenantId]`, `"t"`}, {`[environment().suffixes.keyvaultDns]`, `".vault.azure.net"`}, {`[deployment().name]`, `"main"`},
		{`[resourceId('Microsoft.KeyVault/vaults', 'v')]`, `"` + groupID + `/providers/Microsoft.KeyVault/vaults/v"`},
		{`[resourceId('other', 'Microsoft.KeyVault/vaults/secrets', 'v', 's')]`, `"/subscriptions/` + subID + `/resourceGroups/other/providers/Microsoft.KeyVault/vaults/v/secrets/s"`},
		{`[resourceId('s2', 'other', 'Microsoft.KeyVault/vaults', 'v')]`, `"/subscriptions/s2/resourceGroups/other/providers/Microsoft.KeyVault/vaults/v"`},
		{`[subscriptionResourceId('Microsoft.Resources/resourceGroups', 'g')]`, `"/subscriptions/` + subID + `/resourceGroups/g"`},
		{`[tenantResourceId('Microsoft.Authorization/roleDefinitions', 'r')]`, `"/providers/Microsoft.Authorization/roleDefinitions/r"`},
		{`[extensionResourceId(resourceGroup().id, 'Microsoft.Authorization/roleAssignments', 'a')]`, `"` + groupID + `/providers/Microsoft.Authorization/roleAssignments/a"`},
		{`[guid('a', 'b')]`, `"` + guid("a-b") + `"`}, {`[uniqueString('hello', 'world')]`, `"a7wkljktk6wne"`},
	} {
		got, err := evaluate(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if jsonOf(got) != c.want {
			t.Errorf("%s: %s, want %s", c.in, jsonOf(got), c.want)
		}
	}
}

// TestRefusedExpressions: what is not understood, does not exist or has no
// end is refused with words that say so.
func TestRefusedExpressions(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`[]`, "position 1"}, {`[concat('a']`, "expected"}, {`[concat('a',)]`, "expected"}, {`['a]`, "no end"}, {`[concat('a') b]`, "nexpected text"},
		{`[foo()]`, "'foo' is not valid or not supported"}, {`[other.foo()]`, "'other.foo' is not valid"}, {`[listKeys('a', 'b')]`, "secrets and keys"},
		{`[listSecrets('a', 'b')]`, "secrets and keys"}, {`[listAnything('a')]`, "secrets and keys"}, {`[pickZones('a', 'b', 'c')]`, "availability zones"},
		{`[managementGroupResourceId('a/b', 'c')]`, "management groups"}, {`[concat()]`, "cannot take 0 arguments"}, {`[toLower('a', 'b')]`, "cannot take 2"},
		{`[parameters('none')]`, "'none' is not found"}, {`[variables('none')]`, "'none' is not found"}, {`[variables('v')]`, "depends on itself"},
		{`[parameters('obj').none]`, "'none' does not exist"}, {`[parameters('list')[7]]`, "outside of the array"}, {`[parameters('list')[-1]]`, "outside of the array"},
		{`[toLower(1)]`, "'string' is expected"}, {`[add('a', 1)]`, "'int' is expected"}, {`[if('x', 1, 2)]`, "'bool' is expected"},
		{`[add(9223372036854775807, 1)]`, "too large"}, {`[mul(9223372036854775807, 2)]`, "too large"}, {`[sub(-9223372036854775807, 10)]`, "too large"},
		{`[div(1, 0)]`, "division by zero"}, {`[mod(1, 0)]`, "division by zero"}, {`[99999999999999999999]`, "n integer between"},
		{`[copyIndex()]`, "no copy loop"}, {`[reference('x', '2020-01-01')]`, "not defined"}, {`[reference('/a/b', '2020-01-01')]`, "not expected at this location"},
		{`[utcNow()]`, "only in the default value"}, {`[newGuid()]`, "only in the default value"}, {`[substring('abc', 2, 5)]`, "within the text"}, {`[range(0, 10001)]`, "10000"},
		{`[lambda('x', 1)]`, "can only be an argument"}, {`[createArray(lambda('x', 1))]`, "takes no lambda"}, {`[map(range(0, 1), 'x')]`, "'lambda' is expected"},
		{`[lambdaVariables('x')]`, "not known here"}, {`[resourceId('v', 'x')]`, "resource type"}, {`[resourceId('a/b/c', 'x')]`, "has 2 levels"},
		{`[dateTimeAdd('2020-01-01', 'P')]`, "not a duration"}, {`[dateTimeAdd('2020-01-01', 'PT9999999H')]`, "not a duration"}, {`[dateTimeAdd('2020-01-01', 'P9999Y')]`, "years 1 and 9999"},
		{`[base64ToString('***')]`, "base64"}, {`[json('{')]`, "not JSON"}, {`[format('{1}', 'a')]`, "of which there is none"}, {`[format('{0', 'a')]`, "without its"},
		{`[fail('stop here')]`, "stop here"}, {`[my.none()]`, "'my.none' is not valid"}, {`[my.hail()]`, "takes 1 arguments"},
		{`[` + strings.Repeat("not(", 100) + `true()` + strings.Repeat(")", 100) + `]`, "nested"},
		{`['` + strings.Repeat("x", 25000) + `']`, "longer than 24576"},
		{`[parameters('obj')` + strings.Repeat(".a", 100) + `]`, "accesses"},
	} {
		got, err := evaluate(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, %v; want an error with %q", c.in, got, err, c.want)
		}
	}
}

// TestBombs: texts of a few lines that mean a great deal end soon, with a
// refusal.
func TestBombs(t *testing.T) {
	laughs := func(step string) string {
		s := `"variables": {"v0": "` + strings.Repeat("lol", 10) + `"`
		for i := 1; i < 30; i++ {
			s += strings.NewReplacer("N", itoa(i), "P", itoa(i-1)).Replace(`, "vN": "` + step + `"`)
		}
		return s + `}, "resources": []`
	}
	for name, text := range map[string]string{
		"concat":  laughs(`[concat(variables('vP'), variables('vP'), variables('vP'), variables('vP'))]`),
		"arrays":  laughs(`[createArray(variables('vP'), variables('vP'), variables('vP'), variables('vP'))]`),
		"objects": laughs(`[createObject('a', variables('vP'), 'b', variables('vP'), 'c', variables('vP'))]`),
		"replace": `"variables": {"a": "[replace(padLeft('', 16384, 'x'), 'x', padLeft('', 16384, 'y'))]", "b": "[replace(variables('a'), 'y', padLeft('', 16384, 'z'))]"}, "resources": []`,
		"map":     `"variables": {"v": "[map(range(0, 10000), lambda('a', map(range(0, 10000), lambda('b', range(0, 10000)))))]"}, "resources": []`,
		"format":  `"variables": {"a": "[padLeft('', 16384, 'x')]", "v": "[format('` + strings.Repeat("{0}", 8000) + `', variables('a'))]"}, "resources": []`,
		"equals":  `"variables": {"a": "[range(0, 10000)]", "v": "[map(variables('a'), lambda('x', equals(variables('a'), variables('a'))))]"}, "resources": []`,
		"union":   `"variables": {"a": "[range(0, 10000)]", "b": "[range(20000, 10000)]", "v": "[map(range(0, 100), lambda('x', length(union(variables('a'), variables('b')))))]"}, "resources": []`,
		"copies":  `"variables": {"copy": [{"name": "v", "count": 800, "input": {"copy": [{"name": "w", "count": 800, "input": {"copy": [{"name": "x", "count": 800, "input": "lol"}]}}]}}]}, "resources": []`,
		"functions": `"functions": [{"namespace": "f", "members": {"a": {"parameters": [], "output": {"type": "array", "value": "[createArray(f.b(), f.b())]"}}, "b": {"parameters": [], "output": {"type": "array", "value": "[createArray(f.a(), f.a())]"}}}}],
			"variables": {"v": "[f.a()]"}, "resources": []`,
		"output": `"variables": {"a": "[range(0, 10000)]"}, "resources": [], "outputs": {"o": {"type": "array", "copy": {"count": 800, "input": "[variables('a')]"}}}`,
	} {
		d, err := bind(doc(text), nil)
		if err == nil {
			_, err = d.Outputs(nil)
		}
		if err == nil || !strings.Contains(err.Error(), "too many or too large") && !strings.Contains(err.Error(), "too deeply") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func itoa(i int) string { return jsonOf(int64(i)) }
