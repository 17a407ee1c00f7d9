package netlab

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a DNS server on a zone in memory, over UDP and TCP, that counts its queries
// and misbehaves on request. A name that the zone does not have does not exist; a
// name without addresses has none. It is closed when its test ends.
type DNS struct {
	t    testing.TB
	addr netip.AddrPort

	mu      sync.Mutex // guards what follows
	zone    map[string][]netip.Addr
	srv     map[string][]dnsmessage.SRVResource
	queries []string
	hook    func(DNSQuery) (replies [][]byte, ok bool)
}

// DNSQuery is one question and what the zone answers.
type DNSQuery struct {
	dnsmessage.Question
	TCP bool

	// Reply is the hook's own: to change, and to pack with Pack.
	Reply dnsmessage.Message
}

// Pack returns Reply as bytes, as a hook returns them.
func (q DNSQuery) Pack(t testing.TB) []byte {
	msg, err := q.Reply.Pack()
	if err != nil {
		t.Errorf("dns: %v", err)
	}
	return msg
}

// dnsTTL is that of all records, in seconds.
const dnsTTL = 60

// dnsMaxUDP is the size above which an answer goes over TCP. It is what resolvers ask
// for (DNS flag day 2020).
const dnsMaxUDP = 1232

// NewDNS serves zone on a port of 127.0.0.1, the same for UDP and TCP.
func NewDNS(t testing.TB, zone map[string][]netip.Addr) *DNS {
	t.Helper()
	for range 10 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		// Another process may have the port for TCP.
		if ln, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return ListenDNS(t, pc, ln, zone)
		}
		pc.Close()
	}
	t.Fatal("dns: no port is free for both UDP and TCP")
	return nil
}

// ListenDNS serves zone on sockets that the caller made, in a namespace perhaps, and
// closes them when the test ends. ln may be nil.
func ListenDNS(t testing.TB, pc net.PacketConn, ln net.Listener, zone map[string][]netip.Addr) *DNS {
	d := &DNS{t: t, addr: pc.LocalAddr().(*net.UDPAddr).AddrPort(), zone: make(map[string][]netip.Addr), srv: make(map[string][]dnsmessage.SRVResource)}
	for name, addrs := range zone {
		d.Set(name, addrs...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { d.serveUDP(pc) })
	if ln != nil {
		serving.Go(func() { d.serveTCP(ctx, ln) })
	}
	t.Cleanup(func() {
		cancel()
		pc.Close()
		if ln != nil {
			ln.Close()
		}
		serving.Wait()
	})
	return d
}

// AddrPort returns where the server listens.
func (d *DNS) AddrPort() netip.AddrPort { return d.addr }

// Set replaces the addresses of name; with none, the name exists and has none.
func (d *DNS) Set(name string, addrs ...netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zone[dnsName(name)] = addrs
}

// SetServices replaces the SRV records of name.
func (d *DNS) SetServices(name string, services ...dnsmessage.SRVResource) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.srv[dnsName(name)] = services
}

// Hook makes f answer instead of the zone, where it says ok: with its replies in
// turn, or by silence when there are none. Several goroutines call f at once.
func (d *DNS) Hook(f func(q DNSQuery) (replies [][]byte, ok bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = f
}

// Queries returns the names that were asked for, in lower case and without the last
// dot, one for each question: a lookup of both families counts twice.
func (d *DNS) Queries() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.queries)
}

func (d *DNS) serveUDP(pc net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, reply := range d.answer(buf[:n], false) {
			pc.WriteTo(reply, from) // the client may be gone
		}
	}
}

func (d *DNS) serveTCP(ctx context.Context, ln net.Listener) {
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		clients.Go(func() { d.serveConn(ctx, c) })
	}
}

// serveConn owns c, and ends with the client or with ctx.
func (d *DNS) serveConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		for _, reply := range d.answer(query, true) {
			binary.BigEndian.PutUint16(size[:], uint16(len(reply)))
			c.Write(append(size[:], reply...)) // the client may be gone
		}
	}
}

// answer returns the replies to one query.
func (d *DNS) answer(query []byte, tcp bool) [][]byte {
	var asked dnsmessage.Message
	if err := asked.Unpack(query); err != nil || len(asked.Questions) != 1 {
		d.t.Errorf("dns: bad query %x: %v", query, err)
		return nil
	}
	q := DNSQuery{Question: asked.Questions[0], TCP: tcp}

	d.mu.Lock()
	name := dnsName(q.Name.String())
	d.queries = append(d.queries, name)
	addrs, exists := d.zone[name]
	services, serves := d.srv[name]
	hook := d.hook
	d.mu.Unlock()

	q.Reply = zoneReply(asked, addrs, exists || serves)
	if q.Type == dnsmessage.TypeSRV {
		for _, s := range services {
			q.Reply.Answers = append(q.Reply.Answers, DNSService(q.Name, s))
		}
	}
	if hook != nil {
		if replies, ok := hook(q); ok {
			return replies
		}
	}
	msg := q.Pack(d.t)
	if !tcp && len(msg) > dnsMaxUDP {
		q.Reply.Truncated = true
		q.Reply.Answers = nil
		msg = q.Pack(d.t)
	}
	return [][]byte{msg}
}

func zoneReply(asked dnsmessage.Message, addrs []netip.Addr, exists bool) dnsmessage.Message {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID:                 asked.ID,
			Response:           true,
			RecursionDesired:   asked.RecursionDesired,
			RecursionAvailable: true,
		},
		Questions: asked.Questions,
	}
	if !exists {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, addr := range addrs {
		if r := DNSRecord(asked.Questions[0].Name, addr); r.Header.Type == asked.Questions[0].Type {
			m.Answers = append(m.Answers, r)
		}
	}
	return m
}

// DNSRecord returns the record that says that name has addr.
func DNSRecord(name dnsmessage.Name, addr netip.Addr) dnsmessage.Resource {
	h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: dnsTTL}
	if addr.Is4() {
		h.Type = dnsmessage.TypeA
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}}
	}
	h.Type = dnsmessage.TypeAAAA
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}}
}

// DNSService returns the record that says that name can be had at s.
func DNSService(name dnsmessage.Name, s dnsmessage.SRVResource) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET, TTL: dnsTTL},
		Body:   &s,
	}
}

// DNSAlias returns the record that says that name is another name of target.
func DNSAlias(name, target dnsmessage.Name) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: dnsTTL},
		Body:   &dnsmessage.CNAMEResource{CNAME: target},
	}
}

func dnsName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
