package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// imports is which packages of this module a package may import. ARCHITECTURE.md
// says why. What is not listed may import none.
var imports = map[string][]string{
	".": { // one a line, since all who add a capability add to it
		"iface",
		"internal/admin",
		"internal/auth",
		"internal/config",
		"internal/exit",
		"internal/geo",
		"internal/logqueue",
		"internal/resolver",
		"internal/rules",
		"internal/sockopt",
		"internal/target",
		"listener",
		"listener/egress",
		"listener/router",
		"listener/unwrap",
		"relay",
		"rotate",
	},
	"listener":        {"internal/proxyproto", "internal/sockopt", "relay"},
	"listener/egress": {"internal/auth", "internal/exit", "internal/resolver", "internal/target", "listener", "listener/refusal", "relay", "rotate", "sni"},
	"listener/router": {"internal/exit", "internal/proxyproto", "internal/resolver", "internal/sockopt", "internal/target", "listener", "listener/refusal", "relay", "rotate", "sni"},
	"listener/unwrap": {"internal/proxyproto", "internal/sockopt", "internal/target", "listener", "listener/refusal", "relay"},

	"listener/refusal": {"internal/exit", "internal/resolver", "internal/target", "listener", "rotate"},

	"rotate":          {"internal/exit", "internal/sockopt", "relay"},
	"internal/rules":  {"internal/target"},
	"internal/exit":   {"internal/proxyproto"},
	"internal/config": {"internal/target"},
	"bench":           {"internal/proxyproto"},
}

// testRig is what only tests may import.
const testRig = "internal/netlab"

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != ".":
			return fs.SkipDir
		case path.Ext(file) != ".go":
			return nil
		}
		pkg := path.Dir(filepath.ToSlash(file))
		seen[pkg] = true
		for _, imp := range importsOf(t, file) {
			switch isTest := strings.HasSuffix(file, "_test.go"); {
			case imp == testRig && !isTest && pkg != testRig:
				t.Errorf("%s imports %s, which is for tests", file, imp)
			case !isTest && pkg != testRig && imp != testRig && !slices.Contains(imports[pkg], imp):
				t.Errorf("%s imports %s: not in the table", file, imp)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range imports {
		if !seen[pkg] {
			t.Errorf("the table lists %s, which does not exist", pkg)
		}
	}
}

// importsOf lists the packages of this module that a file imports, without the
// module's name.
func importsOf(t *testing.T, file string) (list []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if p, ok := strings.CutPrefix(p, "swivel/"); ok {
			list = append(list, p)
		}
	}
	return list
}
