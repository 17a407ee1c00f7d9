package sni

// Limits of RFC 1035 section 2.3.4 on names in text without the trailing dot.
const (
	maxName  = 253
	maxLabel = 63
)

const hostName = 0 // the only NameType that there is

// serverName reads a server_name extension, which holds exactly one host name, and
// returns it in canonical form, in dst.
func serverName(data []byte, dst *[maxName]byte) ([]byte, error) {
	c := cursor{rest: data}
	list := c.vector16()
	if c.short || len(c.rest) > 0 {
		return nil, malformed("length of the server name list")
	}
	c = cursor{rest: list}
	typ := c.take(1)
	name := c.vector16()
	switch {
	case c.short:
		return nil, malformed("length of a server name")
	case typ[0] != hostName:
		return nil, malformed("type of a server name")
	case len(c.rest) > 0:
		return nil, malformed("several server names")
	}
	n, ok := canonical(dst[:], name)
	if !ok {
		return nil, malformed("server name")
	}
	return dst[:n], nil
}

// canonical writes name to dst in lower case and without its trailing dot, if it is
// one that DNS could have: labels of letters, digits, hyphens and underscores. One
// whose last label is a number would be taken for an address by some who read it.
func canonical(dst, name []byte) (n int, ok bool) {
	if len(name) > 0 && name[len(name)-1] == '.' {
		name = name[:len(name)-1]
	}
	if len(name) == 0 || len(name) > len(dst) {
		return 0, false
	}
	label := 0 // where it begins
	for i, c := range name {
		switch {
		case c == '.':
			if i == label || i-label > maxLabel {
				return 0, false
			}
			label = i + 1
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return 0, false
		}
		dst[i] = c
	}
	last := dst[label:len(name)]
	if len(last) == 0 || len(last) > maxLabel || isNumber(last) {
		return 0, false
	}
	return len(name), true
}

// isNumber reports whether a label in lower case is a number, decimal or
// hexadecimal: see "ends in a number" in the WHATWG URL standard.
func isNumber(label []byte) bool {
	hex := len(label) >= 2 && label[0] == '0' && label[1] == 'x'
	if hex {
		label = label[2:]
	}
	for _, c := range label {
		if (c < '0' || c > '9') && (!hex || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
