package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is a file being read, and what was found wrong with it so far.
type file struct {
	name    string
	found   []finding
	sockets int // that its listeners want
}

type finding struct {
	line, col int
	text      string
}

// maxErrors is how many are shown. More of them is not a configuration.
const maxErrors = 100

// err returns the findings, one per line, in the order of the file.
func (f *file) err() error {
	slices.SortStableFunc(f.found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col))
	})
	var errs []error
	for i, x := range f.found {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d mistakes more", f.name, len(f.found)-i))
			break
		}
		errs = append(errs, fmt.Errorf("%s:%d:%d: %s", f.name, x.line, x.col, x.text))
	}
	return errors.Join(errs...)
}

// add notes what is wrong at a place.
func (f *file) add(line, col int, text string) {
	f.found = append(f.found, finding{line, col, text})
}

// beside returns path as seen from the folder of the file.
func (f *file) beside(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(f.name), path)
}

// node is one value of the file.
type node struct {
	file *file
	yaml *yaml.Node
	key  *yaml.Node // its key, when it is the value of one
	path string     // the keys that lead to it, such as listeners[0].mode
}

func (n node) errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if n.path != "" {
		text = n.path + ": " + text
	}
	n.add(text)
}

// add notes what is wrong with the value, where it begins. What is not there is
// looked for at its key.
func (n node) add(text string) {
	at := n.yaml
	if n.key != nil && n.kind() == kindNone {
		at = n.key
	}
	n.file.add(at.Line, at.Column, text)
}

// want notes that the value is not of the kind it should be.
func (n node) want(kind string) {
	switch got := n.kind(); got {
	case kindNone:
		n.errorf("empty (leave the key out, or give it %s)", kind)
	case kindFraction, kindOther:
		n.errorf("%q, want %s", shorten(n.yaml.Value), kind)
	default:
		n.errorf("%s, want %s", got, kind)
	}
}

// The kinds of values, in the words of the errors.
const (
	kindNone     = "nothing"
	kindText     = "text"
	kindBlock    = "a block of text"
	kindNumber   = "a whole number"
	kindFraction = "a number"
	kindOther    = "a word of YAML" // true, .inf
	kindList     = "a list"
	kindFields   = "keys and values"
)

func (n node) kind() string {
	switch {
	case n.yaml.Kind == yaml.SequenceNode:
		return kindList
	case n.yaml.Kind == yaml.MappingNode:
		return kindFields
	case n.yaml.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return kindBlock
	}
	switch n.yaml.Tag {
	case "!!str", "!!timestamp": // a day is text: YAML 1.2 has no dates
		return kindText
	case "!!int":
		return kindNumber
	case "!!float":
		if strings.ContainsAny(n.yaml.Value, "nN") { // .inf and .nan
			return kindOther
		}
		return kindFraction
	case "!!null":
		return kindNone
	default:
		return kindOther
	}
}

// child returns the value of a key, or n itself when it has no such key.
func (n node) child(key string) node {
	if n.kind() != kindFields {
		return n
	}
	for kv := range slices.Chunk(n.yaml.Content, 2) {
		if kv[0].Value == key {
			return node{n.file, kv[1], kv[0], n.join(key)}
		}
	}
	return n
}

func (n node) has(key string) bool { return n.child(key).path != n.path }

// items returns the values of a list, or n alone when it is none.
func (n node) items() []node {
	if n.kind() != kindList {
		return []node{n}
	}
	list := make([]node, len(n.yaml.Content))
	for i, v := range n.yaml.Content {
		list[i] = node{n.file, v, nil, fmt.Sprintf("%s[%d]", n.path, i)}
	}
	return list
}

// each calls do for every value of a list.
func (n node) each(do func(node)) {
	if n.kind() != kindList {
		n.want(kindList)
		return
	}
	for _, item := range n.items() {
		do(item)
	}
}

func (n node) join(key string) string {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return !strconv.IsPrint(r) || r == ' ' || r == '.' }) {
		key = strconv.Quote(key)
	}
	if n.path == "" {
		return shorten(key)
	}
	return n.path + "." + shorten(key)
}

// shorten cuts what is repeated in an error. Of a URL no more than its scheme is
// shown, wherever it was written: it may have a password in it.
func shorten(s string) string {
	if i := strings.Index(s, "://"); i >= 0 {
		s = s[:i+len("://")] + "…"
	}
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
