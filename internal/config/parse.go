package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	maxSize  = 1 << 20 // bytes of a file
	maxDepth = 32      // of lists and mappings in one another; ours take 6
)

// Load reads and validates the file at path.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse validates data, the content of the file called name. Relative paths in it
// are seen from the folder of name. The error has a line for each mistake.
func Parse(name string, data []byte) (*Config, error) {
	f := &file{name: name}
	root, err := f.parse(data)
	if err != nil {
		return nil, err
	}
	c := defaults()
	c.File = name
	c.read(root)
	if err := f.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// parse returns the only document of data.
func (f *file) parse(data []byte) (node, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // as some editors begin a file
	switch {
	case len(data) > maxSize:
		return node{}, fmt.Errorf("%s: larger than 1 MiB", f.name)
	case !utf8.Valid(data):
		return node{}, fmt.Errorf("%s: not UTF-8 text", f.name)
	}
	root := f.document(data)
	switch {
	case len(f.found) > 0:
		return node{}, f.err()
	case root.yaml == nil || root.kind() == kindNone:
		return node{}, fmt.Errorf("%s: empty (the least there can be is a listener)", f.name)
	}
	return root, nil
}

// document reads data with the library, and notes what it cannot read and what we
// refuse. Keys that come twice are found in node.pairs, where all of them are.
func (f *file) document(data []byte) node {
	if f.refuseDirective(data); len(f.found) > 0 {
		return node{}
	}
	defer func() {
		// The library panics where it doubts itself. That is not to end a process
		// which only wanted to reload.
		if r := recover(); r != nil {
			f.add(1, 1, fmt.Sprintf("not understood by the YAML library: %v", r))
		}
	}()
	var doc, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	switch err := d.Decode(&doc); err {
	case nil:
	case io.EOF:
		return node{}
	default:
		f.syntax(err)
		return node{}
	}
	root := doc.Content[0]
	if f.refuse(root, 1); len(f.found) > 0 {
		return node{}
	}
	switch err := d.Decode(&second); err {
	case nil:
		f.add(second.Line, second.Column, "a second document (one file is one document)")
	case io.EOF:
	default:
		f.syntax(err)
	}
	return node{file: f, yaml: root}
}

// syntax notes an error of the library: "yaml: line 3: what", without the line if
// it is the first.
func (f *file) syntax(err error) {
	line, text := 0, strings.TrimPrefix(err.Error(), "yaml: ")
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
	}
	if ofParser(text) {
		line++
	}
	text = shorten(text)
	if text == "did not find expected node content" || text == "did not find expected alphabetic or numeric character" {
		text += " (text that begins with * & : , or [ goes in quotes)"
	}
	f.add(max(line, 1), 1, text)
}

// ofParser reports whether an error is one of the library's parser, which counts
// lines from 0; its scanner counts from 1. Only the words tell them apart.
func ofParser(text string) bool {
	what, ok := strings.CutPrefix(text, "did not find expected ")
	return ok && slices.ContainsFunc([]string{"node content", "key", "'-' indicator", "',' or", "<document start>"}, func(s string) bool {
		return strings.HasPrefix(what, s)
	})
}

const refusedSyntax = "%q is not taken (a file is keys, values and lists)"

// refuseDirective notes a directive, which the library does not tell us of. One
// can only stand before the document.
func (f *file) refuseDirective(data []byte) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		switch line = bytes.TrimSpace(line); {
		case len(line) == 0 || line[0] == '#':
		case line[0] == '%':
			f.add(number, 1, fmt.Sprintf(refusedSyntax, "%"))
			return
		default:
			return
		}
	}
}

// refuse notes the first thing in n that YAML has and a configuration does not
// need: what stands for something that is written elsewhere, and deep nesting.
// The library itself stops at 10,000 levels.
func (f *file) refuse(n *yaml.Node, depth int) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge":
		f.add(n.Line, n.Column, "anchors, aliases and merge keys are not taken (write the values out)")
	case n.Style&yaml.TaggedStyle != 0:
		f.add(n.Line, n.Column, fmt.Sprintf(refusedSyntax, shorten(n.Tag)))
	case n.Kind != yaml.ScalarNode && depth > maxDepth:
		f.add(n.Line, n.Column, "nested too deeply")
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			f.refuseKey(n, child)
		}
		if len(f.found) > 0 {
			return
		}
		f.refuse(child, depth+1)
	}
}

// refuseKey notes a key of n that is more than text, or stands behind a "?": the
// other keys of a block stand below one another, where the block begins.
func (f *file) refuseKey(n, key *yaml.Node) {
	switch {
	case n.Style&yaml.FlowStyle == 0 && key.Column != n.Column:
		f.add(key.Line, n.Column, fmt.Sprintf(refusedSyntax, "?"))
	case key.Kind == yaml.SequenceNode || key.Kind == yaml.MappingNode:
		f.add(key.Line, key.Column, "a key that is not text is not taken (a file is keys, values and lists)")
	}
}
