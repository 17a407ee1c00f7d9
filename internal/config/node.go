package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// file is a file being read, and what was found wrong with it so far.
type file struct {
	name  string
	found []finding
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

// add notes what is wrong at tk.
func (f *file) add(tk *token.Token, text string) {
	x := finding{line: 1, col: 1, text: text}
	if tk != nil && tk.Position != nil {
		x.line, x.col = tk.Position.Line, tk.Position.Column
	}
	f.found = append(f.found, x)
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
	ast  ast.Node
	key  ast.Node // its key, when it is the value of one
	path string   // the keys that lead to it, such as listeners[0].mode
}

func (n node) errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if n.path != "" {
		text = n.path + ": " + text
	}
	n.file.add(n.start(), text)
}

// start is where the value begins. A block mapping begins with its first key; the
// token the parser gives for one is the colon behind it. What is not there is
// looked for at its key.
func (n node) start() *token.Token {
	if n.key != nil && n.ast.Type() == ast.NullType {
		return n.key.GetToken()
	}
	if m, ok := n.ast.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.ast.GetToken()
}

// want notes that the value is not of the kind it should be.
func (n node) want(kind string) {
	if n.ast.Type() == ast.NullType {
		n.errorf("empty (leave the key out, or give it %s)", kind)
		return
	}
	n.errorf("%s, want %s", kindOf(n.ast), kind)
}

const (
	kindText   = "text"
	kindNumber = "a whole number"
	kindList   = "a list"
	kindFields = "keys and values"
)

func kindOf(n ast.Node) string {
	switch n.Type() {
	case ast.StringType:
		return kindText
	case ast.LiteralType:
		return "a block of text"
	case ast.IntegerType:
		return kindNumber
	case ast.SequenceType:
		return kindList
	case ast.MappingType:
		return kindFields
	default:
		return fmt.Sprintf("%q", shorten(n.GetToken().Value)) // true, 1.5, .inf
	}
}

// child returns the value of a key, or n itself when it has no such key.
func (n node) child(key string) node {
	if m, ok := n.ast.(*ast.MappingNode); ok {
		for _, kv := range m.Values {
			if keyText(kv.Key) == key {
				return node{n.file, kv.Value, kv.Key, n.join(key)}
			}
		}
	}
	return n
}

func (n node) has(key string) bool { return n.child(key).path != n.path }

// items returns the values of a list, or n alone when it is none.
func (n node) items() []node {
	seq, ok := n.ast.(*ast.SequenceNode)
	if !ok {
		return []node{n}
	}
	list := make([]node, len(seq.Values))
	for i, v := range seq.Values {
		list[i] = node{n.file, v, nil, fmt.Sprintf("%s[%d]", n.path, i)}
	}
	return list
}

// each calls do for every value of a list.
func (n node) each(do func(node)) {
	if n.ast.Type() != ast.SequenceType {
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

// keyText is the key itself, without the quotes it may stand in.
func keyText(key ast.MapKeyNode) string { return key.GetToken().Value }

// shorten cuts what is repeated in an error.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
