package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
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
	tokens := lexer.Tokenize(string(data))
	if refuse(f, tokens); len(f.found) > 0 {
		return node{}, f.err()
	}
	// Keys that come twice are found in node.pairs, where all of them are.
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var at yaml.Error
		if !errors.As(err, &at) {
			return node{}, fmt.Errorf("%s: %w", f.name, err)
		}
		message := strconv.Quote(at.GetMessage()) // it may repeat what does not print
		f.add(at.GetToken(), strings.ReplaceAll(message[1:len(message)-1], `\"`, `"`))
		return node{}, f.err()
	}
	if len(tree.Docs) > 1 {
		f.add(tree.Docs[1].Start, "a second document (one file is one document)")
		return node{}, f.err()
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil || tree.Docs[0].Body.Type() == ast.NullType {
		return node{}, fmt.Errorf("%s: empty (the least there can be is a listener)", f.name)
	}
	return node{file: f, ast: tree.Docs[0].Body}, nil
}

// refuse notes what YAML has and a configuration does not need: what stands for
// something that is written elsewhere, and nesting so deep that reading it takes
// the parser more stack than there is.
func refuse(f *file, tokens token.Tokens) {
	flow, run, line := 0, 0, 0
	for _, tk := range tokens {
		switch tk.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			f.add(tk, "anchors, aliases and merge keys are not taken (write the values out)")
			return
		case token.TagType, token.DirectiveType, token.MappingKeyType:
			f.add(tk, fmt.Sprintf("%q is not taken (a file is keys, values and lists)", tk.Value))
			return
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType: // "- - - x" is lists in lists
			if tk.Position.Line != line {
				run, line = 0, tk.Position.Line
			}
			run++
		}
		if flow > maxDepth || run > maxDepth {
			f.add(tk, "nested too deeply")
			return
		}
	}
}
