package unwrap

import (
	"net/netip"
	"testing"

	"swivel/internal/proxyproto"
)

// 3c/15: which header is one, for each form.
func TestDatagramsHeader(t *testing.T) {
	h := proxyproto.Header{UDP: true, Src: netip.MustParseAddrPort("198.51.100.7:5001"), Dst: netip.MustParseAddrPort("203.0.113.1:53")}
	stream := h
	stream.UDP = false
	headers := map[string]string{
		"nothing":         "",
		"no header":       "hello",
		"v2":              string(proxyproto.AppendV2(nil, h)),
		"half of v2":      string(proxyproto.AppendV2(nil, h)[:20]),
		"v2 of TCP":       string(proxyproto.AppendV2(nil, stream)),
		"LOCAL":           string(proxyproto.AppendV2(nil, proxyproto.Header{Local: true})),
		"v1":              string(proxyproto.AppendV1(nil, stream)),
		"v1 without CRLF": "PROXY TCP4 198.51.100.7 203.0.113.1 5001 53",
		"UNKNOWN":         string(proxyproto.AppendV1(nil, proxyproto.Header{Local: true})),
		"simple":          string(proxyproto.AppendSimple(nil, h)),
		"half of simple":  string(proxyproto.AppendSimple(nil, h)[:20]),
	}
	for form, taken := range map[Header][]string{
		Every:   {"v2", "LOCAL"},
		First:   {"v2", "LOCAL"},
		FirstV1: {"v1", "UNKNOWN"},
		Simple:  {"simple"},
	} {
		want := make(map[string]bool)
		for _, name := range taken {
			want[name] = true
		}
		d := &Datagrams{Form: form}
		for name, header := range headers {
			payload := "payload"
			if !want[name] {
				payload = ""
			}
			c, n, err := d.Header([]byte(header + payload))
			if (err == nil) != want[name] || err == nil && n != len(header) {
				t.Errorf("%s, %s: got %+v, %d, %v", form, name, c, n, err)
			}
			if named := name != "LOCAL" && name != "UNKNOWN"; err == nil && (named != (c.Src == h.Src) || named != (c.Dst == h.Dst)) {
				t.Errorf("%s, %s: got %+v", form, name, c)
			}
		}
	}
}

func TestPorts(t *testing.T) {
	var p Ports
	src, dst := netip.MustParseAddrPort("198.51.100.7:1"), netip.MustParseAddrPort("127.0.0.1:2")
	if !p.take(src, dst) || p.take(src, dst) || !p.take(dst, src) {
		t.Error("a pair is taken once")
	}
	p.giveBack(src, dst)
	if !p.take(src, dst) {
		t.Error("a pair that was given back is not taken")
	}
}
