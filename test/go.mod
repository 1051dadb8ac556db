module github.com/podkey/podkey/test

go 1.26.0

replace github.com/podkey/podkey => ../

require github.com/podkey/podkey v0.0.0-00010101000000-000000000000
