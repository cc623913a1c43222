package vpnserver

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is the private network's names: intranet.example with both addresses,
// www (an alias), v4 and v6 (one address each), and big, whose answer does not
// fit a UDP message. Other names do not exist.
type zone struct {
	private4, private6 netip.Addr
}

const (
	nameTTL    = 60
	maxUDP     = 512 // RFC 1035 section 4.2.1
	dnsIdle    = 30 * time.Second
	bigRecords = 12
)

func (z zone) serveUDP(c net.PacketConn) {
	buf := make([]byte, maxUDP)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := z.answer(buf[:n], maxUDP); reply != nil {
			c.WriteTo(reply, from)
		}
	}
}

func (z zone) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go z.serveConn(c)
	}
}

func (z zone) serveConn(c net.Conn) {
	defer c.Close()
	for {
		c.SetDeadline(time.Now().Add(dnsIdle))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		reply := z.answer(query, 65535)
		if reply == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// answer returns the reply to a query, cut off (TC) if it is longer than limit;
// nil if the query is none.
func (z zone) answer(query []byte, limit int) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil || header.Response {
		return nil
	}
	question, err := p.Question()
	if err != nil {
		return nil
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired},
		Questions: []dnsmessage.Question{question},
	}
	reply.Answers, reply.RCode = z.records(question)
	packed, err := reply.Pack()
	if err == nil && len(packed) > limit {
		reply.Answers, reply.Truncated = nil, true
		packed, err = reply.Pack()
	}
	if err != nil {
		return nil
	}
	return packed
}

func (z zone) records(q dnsmessage.Question) ([]dnsmessage.Resource, dnsmessage.RCode) {
	label, ok := strings.CutSuffix(strings.ToLower(q.Name.String()), PrivateName+".")
	if !ok {
		return nil, dnsmessage.RCodeNameError
	}
	private := dnsmessage.MustNewName(PrivateName + ".")
	var answers []dnsmessage.Resource
	add := func(name dnsmessage.Name, kind dnsmessage.Type, body dnsmessage.ResourceBody) {
		answers = append(answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: name, Type: kind, Class: dnsmessage.ClassINET, TTL: nameTTL}, Body: body})
	}
	addresses := func(name dnsmessage.Name, has4, has6 bool) {
		if q.Type == dnsmessage.TypeA && has4 && z.private4.IsValid() {
			add(name, dnsmessage.TypeA, &dnsmessage.AResource{A: z.private4.As4()})
		}
		if q.Type == dnsmessage.TypeAAAA && has6 && z.private6.IsValid() {
			add(name, dnsmessage.TypeAAAA, &dnsmessage.AAAAResource{AAAA: z.private6.As16()})
		}
	}
	switch label {
	case "":
		addresses(q.Name, true, true)
	case "www.":
		add(q.Name, dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: private})
		addresses(private, true, true)
	case "v4.":
		addresses(q.Name, true, false)
	case "v6.":
		addresses(q.Name, false, true)
	case "big.":
		if q.Type == dnsmessage.TypeTXT {
			for range bigRecords {
				add(q.Name, dnsmessage.TypeTXT, &dnsmessage.TXTResource{TXT: []string{strings.Repeat("0", 250)}})
			}
		}
	default:
		return nil, dnsmessage.RCodeNameError
	}
	return answers, dnsmessage.RCodeSuccess
}
