package resolver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

var (
	errStray     = fmt.Errorf("%w: answer to another question", ErrServer)
	errTruncated = fmt.Errorf("%w: truncated answer", ErrServer)
	errGarbage   = fmt.Errorf("%w: unreadable answer", ErrServer)
	errChain     = fmt.Errorf("%w: endless chain of aliases", ErrServer)
)

// question asks for the addresses of a name in one family, or for its services.
type question struct {
	dnsmessage.Question
	packed []byte // as a message, whose ID is zero
}

// found is what a server knows. There is at least one address or service.
type found struct {
	addrs    []netip.Addr
	services []Service
	ttl      time.Duration
}

// payload is the size of datagrams that is asked for, the most that no path
// fragments (DNS flag day 2020).
const payload = 1232

// newQuestion fails with ErrNotFound if name cannot be asked for.
func newQuestion(name string, typ dnsmessage.Type) (*question, error) {
	q := new(question)
	var err error
	if q.Name, err = dnsmessage.NewName(name + "."); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	q.Type, q.Class = typ, dnsmessage.ClassINET

	var opt dnsmessage.ResourceHeader
	if err := opt.SetEDNS0(payload, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{RecursionDesired: true},
		Questions:   []dnsmessage.Question{q.Question},
		Additionals: []dnsmessage.Resource{{Header: opt, Body: new(dnsmessage.OPTResource)}},
	}
	if q.packed, err = m.Pack(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return q, nil
}

// message returns the question as bytes.
func (q *question) message(id uint16) []byte {
	msg := slices.Clone(q.packed)
	binary.BigEndian.PutUint16(msg, id)
	return msg
}

// read reads the answer to q that was sent as id. It fails with errStray if msg is
// something else, and with errTruncated if TCP would bring more.
func (q *question) read(id uint16, msg []byte) (found, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response {
		return found{}, errStray
	}
	asked, err := p.Question()
	if err != nil || asked.Type != q.Type || asked.Class != q.Class || fold(asked.Name) != fold(q.Name) {
		return found{}, errStray
	}
	switch {
	case h.Truncated:
		return found{}, errTruncated
	case h.RCode == dnsmessage.RCodeNameError:
		return found{}, ErrNotFound
	case h.RCode != dnsmessage.RCodeSuccess:
		return found{}, fmt.Errorf("%w: %v", ErrServer, h.RCode)
	}
	records, err := readRecords(&p, q.Type)
	if err != nil {
		return found{}, err
	}
	return follow(records, fold(q.Name))
}

// record says that owner has an address or a service, or is another name of alias.
type record struct {
	owner   string
	ttl     uint32
	addr    netip.Addr
	service *Service
	alias   string
}

// readRecords reads what was asked for, and the aliases, of an answer.
func readRecords(p *dnsmessage.Parser, typ dnsmessage.Type) ([]record, error) {
	if err := p.SkipAllQuestions(); err != nil {
		return nil, errGarbage
	}
	var records []record
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return records, nil
		}
		if err != nil {
			return nil, errGarbage
		}
		r := record{owner: fold(h.Name), ttl: h.TTL}
		switch {
		case h.Class != dnsmessage.ClassINET, h.Type != typ && h.Type != dnsmessage.TypeCNAME:
			err = p.SkipAnswer()
		default:
			err = r.readBody(p, h)
			records = append(records, r)
		}
		if err != nil {
			return nil, errGarbage
		}
	}
}

// readBody reads an A, AAAA, SRV or CNAME record.
func (r *record) readBody(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) error {
	switch {
	case h.Type == dnsmessage.TypeCNAME:
		body, err := p.CNAMEResource()
		r.alias = fold(body.CNAME)
		return err
	case h.Type == dnsmessage.TypeSRV:
		return r.readService(p)
	case h.Type == dnsmessage.TypeA && h.Length == 4:
		body, err := p.AResource()
		r.addr = netip.AddrFrom4(body.A)
		return err
	case h.Type == dnsmessage.TypeAAAA && h.Length == 16:
		body, err := p.AAAAResource()
		r.addr = netip.AddrFrom16(body.AAAA).Unmap()
		return err
	}
	return errGarbage
}

// maxChain bounds how many aliases lead from a name to its addresses.
const maxChain = 16

// follow returns the addresses or services of name, or of what it is another name of. A record
// of an owner that the chain does not lead to is not believed.
func follow(records []record, name string) (found, error) {
	ttl := uint32(math.MaxUint32)
	for range maxChain + 1 {
		var f found
		alias := ""
		for _, r := range records {
			switch {
			case r.owner != name:
				continue
			case r.alias != "":
				alias = r.alias
			case r.service != nil:
				if r.service.Host != "" && len(f.services) < maxServices {
					f.services = append(f.services, *r.service)
				}
			case len(f.addrs) < maxAddrs:
				f.addrs = append(f.addrs, r.addr)
			}
			ttl = min(ttl, r.ttl)
		}
		if alias == "" {
			if len(f.addrs)+len(f.services) == 0 {
				return found{}, ErrNotFound
			}
			f.ttl = time.Duration(ttl) * time.Second
			return f, nil
		}
		name = alias
	}
	return found{}, errChain
}

// fold returns n in lower case, for ASCII only: DNS knows no other.
func fold(n dnsmessage.Name) string {
	b := n.Data[:n.Length]
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
