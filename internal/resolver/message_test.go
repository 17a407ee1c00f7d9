package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"swivel/internal/netlab"
)

const testID = 0x1234

func testQuestion(t testing.TB, typ dnsmessage.Type) *question {
	t.Helper()
	q, err := newQuestion("a.example", typ)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// reply returns an answer to q with these records.
func reply(t testing.TB, q *question, answers ...dnsmessage.Resource) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: testID, Response: true},
		Questions: []dnsmessage.Question{q.Question},
		Answers:   answers,
	}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestQuestion(t *testing.T) {
	var m dnsmessage.Message
	if err := m.Unpack(testQuestion(t, dnsmessage.TypeAAAA).message(testID)); err != nil {
		t.Fatal(err)
	}
	if m.ID != testID || m.Response || !m.RecursionDesired {
		t.Errorf("header is %v", m.Header)
	}
	want := dnsmessage.Question{Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET}
	if len(m.Questions) != 1 || m.Questions[0] != want {
		t.Errorf("questions are %v, want %v", m.Questions, want)
	}
	if len(m.Additionals) != 1 || m.Additionals[0].Header.Type != dnsmessage.TypeOPT || m.Additionals[0].Header.Class != 1232 {
		t.Errorf("additionals are %v, want EDNS0 with 1232 bytes", m.Additionals)
	}
}

func TestRead(t *testing.T) {
	name := dnsmessage.MustNewName
	asked, other := name("a.example."), name("b.example.")
	chain := func(links int, last dnsmessage.Resource) []dnsmessage.Resource {
		var rs []dnsmessage.Resource
		owner := asked
		for i := range links {
			next := name(fmt.Sprintf("c%d.example.", i))
			rs = append(rs, netlab.DNSAlias(owner, next))
			owner = next
		}
		last.Header.Name = owner
		return append([]dnsmessage.Resource{last}, rs...) // in an order that is not the chain's
	}
	chaos := netlab.DNSRecord(asked, a2)
	chaos.Header.Class = dnsmessage.ClassCHAOS
	short := netlab.DNSAlias(asked, other)
	short.Header.TTL = 7
	wrong := dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: asked, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
		Body:   &dnsmessage.UnknownResource{Type: dnsmessage.TypeA, Data: []byte{192, 0, 2}},
	}
	for _, tt := range []struct {
		id      string
		answers []dnsmessage.Resource
		want    []netip.Addr
		ttl     time.Duration
		err     error
	}{
		{"address", []dnsmessage.Resource{netlab.DNSRecord(asked, a1)}, []netip.Addr{a1}, time.Minute, nil},
		{"owner in other case", []dnsmessage.Resource{netlab.DNSRecord(name("A.EXAMPLE."), a1)}, []netip.Addr{a1}, time.Minute, nil},
		{"empty", nil, nil, 0, ErrNotFound},
		{"other family", []dnsmessage.Resource{netlab.DNSRecord(asked, b1)}, nil, 0, ErrNotFound},
		{"other class", []dnsmessage.Resource{chaos, netlab.DNSRecord(asked, a1)}, []netip.Addr{a1}, time.Minute, nil},
		{"other owner", []dnsmessage.Resource{netlab.DNSRecord(asked, a1), netlab.DNSRecord(other, a2)}, []netip.Addr{a1}, time.Minute, nil},
		{"only another owner", []dnsmessage.Resource{netlab.DNSRecord(other, a2)}, nil, 0, ErrNotFound},
		{"alias has the least TTL", []dnsmessage.Resource{short, netlab.DNSRecord(other, a1)}, []netip.Addr{a1}, 7 * time.Second, nil},
		{"alias of nothing", []dnsmessage.Resource{short}, nil, 0, ErrNotFound},
		{"3a/29 chain of 16", chain(16, netlab.DNSRecord(asked, a1)), []netip.Addr{a1}, time.Minute, nil},
		{"3a/29 chain of 17", chain(17, netlab.DNSRecord(asked, a1)), nil, 0, ErrServer},
		{"3a/29 chain of 100", chain(100, netlab.DNSRecord(asked, a1)), nil, 0, ErrServer},
		{"3a/29 loop", []dnsmessage.Resource{netlab.DNSAlias(asked, other), netlab.DNSAlias(other, asked)}, nil, 0, ErrServer},
		{"3a/29 loop of one", []dnsmessage.Resource{netlab.DNSAlias(asked, asked), netlab.DNSRecord(asked, a1)}, nil, 0, ErrServer},
		{"3a/29 no more than 16", slices.Repeat([]dnsmessage.Resource{netlab.DNSRecord(asked, a1)}, 4096), slices.Repeat([]netip.Addr{a1}, 16), time.Minute, nil},
		{"address of three bytes", []dnsmessage.Resource{wrong}, nil, 0, ErrServer},
	} {
		t.Run(tt.id, func(t *testing.T) {
			q := testQuestion(t, dnsmessage.TypeA)
			got, err := q.read(testID, reply(t, q, tt.answers...))
			if !errors.Is(err, tt.err) || !slices.Equal(got.addrs, tt.want) || got.ttl != tt.ttl {
				t.Errorf("got %v for %v, %v, want %v for %v, %v", got.addrs, got.ttl, err, tt.want, tt.ttl, tt.err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	asked, other := dnsmessage.MustNewName("a.example."), dnsmessage.MustNewName("b.example.")
	service := netlab.DNSService(asked, dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 3, Target: other})
	for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV} {
		q := testQuestion(f, typ)
		f.Add(reply(f, q, service), uint16(typ))
		f.Add(q.message(testID), uint16(typ))
		f.Add(reply(f, q), uint16(typ))
		f.Add(reply(f, q, netlab.DNSRecord(asked, a1), netlab.DNSRecord(asked, b1)), uint16(typ))
		f.Add(reply(f, q, netlab.DNSAlias(asked, other), netlab.DNSRecord(other, a1), netlab.DNSRecord(other, b1)), uint16(typ))
		f.Add(reply(f, q, netlab.DNSAlias(asked, other), netlab.DNSAlias(other, asked)), uint16(typ))
	}
	f.Fuzz(func(t *testing.T, msg []byte, typ uint16) {
		q := testQuestion(t, dnsmessage.TypeA)
		switch t2 := dnsmessage.Type(typ); t2 {
		case dnsmessage.TypeAAAA, dnsmessage.TypeSRV:
			q = testQuestion(t, t2)
		}
		got, err := q.read(testID, msg)
		if err != nil {
			if len(got.addrs)+len(got.services) > 0 || errors.Is(err, ErrNotFound) == errors.Is(err, ErrServer) {
				t.Fatalf("got %v, %v", got, err)
			}
			return
		}
		if n := len(got.addrs) + len(got.services); n < 1 || len(got.addrs) > maxAddrs || len(got.services) > maxServices || got.ttl < 0 {
			t.Fatalf("got %v", got)
		}
		for _, addr := range got.addrs {
			if !addr.IsValid() || addr.Is4In6() || addr.Is6() && q.Type == dnsmessage.TypeA {
				t.Fatalf("got %v", got)
			}
		}
	})
}
