package config

import (
	"slices"
	"strings"
)

// field is one key of a mapping and what is done with its value.
type field struct {
	key      string
	read     func(node)
	example  string // of a key that must be there
	required bool
	foreign  bool // the key of another mode
}

func key(name string, read func(node)) field { return field{key: name, read: read} }

func required(name, example string, read func(node)) field {
	return field{key: name, read: read, example: example, required: true}
}

// refuse notes what is wrong with a key that is not to be there.
func (n node) refuse(format string, args ...any) {
	n.yaml = n.key
	n.errorf(format, args...)
}

// fields reads a mapping with these keys and no others.
func (n node) fields(known ...field) {
	seen := n.pairs(func(name string, v node) {
		for _, f := range known {
			if f.key == name {
				f.read(v)
				return
			}
		}
		v.refuse("unknown key (%s)", hint(name, known))
	})
	for _, f := range known {
		if f.required && seen != nil && !seen[f.key] {
			n.add(n.join(f.key) + ": missing (" + f.example + ")")
		}
	}
}

// pairs calls do for every key of a mapping, and returns which there are, or nil
// when n is no mapping.
func (n node) pairs(do func(name string, v node)) (seen map[string]bool) {
	if n.kind() != kindFields {
		n.want(kindFields)
		return nil
	}
	seen = make(map[string]bool)
	for kv := range slices.Chunk(n.yaml.Content, 2) {
		name := kv[0].Value
		v := node{file: n.file, yaml: kv[1], key: kv[0], path: n.join(name)}
		if seen[name] {
			v.refuse("the same key again")
			continue
		}
		seen[name] = true
		do(name, v)
	}
	return seen
}

// hint says what was probably meant, and what there is if that is short.
func hint(name string, known []field) string {
	var all, now []string
	for _, f := range known {
		all = append(all, f.key)
		if !f.foreign {
			now = append(now, f.key)
		}
	}
	there := "there are " + strings.Join(now, ", ")
	near := nearest(name, all)
	switch {
	case near == "":
		return there
	case len(now) > 4:
		return "did you mean " + near + "?"
	default:
		return "did you mean " + near + "? " + there
	}
}

// value reads text or a number with parse, which reads flags as well.
func value[T any](dst *T, parse func(string) (T, error)) func(node) {
	return func(n node) {
		switch n.kind() {
		case kindText, kindNumber, kindFraction:
		default:
			n.want("text or a number")
			return
		}
		v, err := parse(n.yaml.Value)
		if err != nil {
			n.errorf("%v", err)
			return
		}
		*dst = v
	}
}

// text reads text that must not look like a number: what is a name for one reader
// of YAML (0x10, 1_000) is a number for another.
func text(dst *string) func(node) {
	read := value(dst, parseText)
	return func(n node) {
		switch n.kind() {
		case kindText:
			read(n)
		case kindNumber, kindFraction:
			n.errorf("a number, want text (write \"%s\")", shorten(n.yaml.Value))
		default:
			n.want(kindText)
		}
	}
}

// number reads a whole number.
func number(dst *int, least, most uint64) func(node) {
	read := value(dst, parseNumber(least, most))
	return func(n node) {
		if n.kind() != kindNumber {
			n.want(kindNumber)
			return
		}
		read(n)
	}
}

// list reads a list.
func list[T any](dst *[]T, parse func(string) (T, error)) func(node) {
	return func(n node) {
		n.each(func(item node) {
			var v T
			value(&v, parse)(item)
			*dst = append(*dst, v)
		})
	}
}

// some is read for a list that is not empty. Where no list means everything, an
// empty one is more likely a mistake than a wish.
func some(read func(node)) func(node) {
	return func(n node) {
		if n.kind() == kindList && len(n.yaml.Content) == 0 {
			n.errorf("an empty list (leave the key out, or name some)")
			return
		}
		read(n)
	}
}

// oneOrMore is read, of a list, for one value as well.
func oneOrMore[T any](dst *[]T, parse func(string) (T, error)) func(node) {
	return func(n node) {
		if n.kind() == kindList {
			some(list(dst, parse))(n)
			return
		}
		*dst = make([]T, 1)
		value(&(*dst)[0], parse)(n)
	}
}
