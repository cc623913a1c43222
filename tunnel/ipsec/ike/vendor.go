package ike

import (
	"bytes"
	"encoding/hex"
)

// natVersion says which text of NAT traversal both sides know: they differ in numbers only.
type natVersion int

const (
	natNone  natVersion = iota
	natDraft            // draft-ietf-ipsec-nat-t-ike-02 and -03
	natRFC              // RFC 3947
)

// payloads of NAT traversal: NAT-D and NAT-OA.
func (v natVersion) payloads() (natD, natOA payloadType) {
	if v == natDraft {
		return 130, 131
	}
	return 20, 21
}

// encapsulation is the mode that stands for ESP in UDP, transport mode.
func (v natVersion) encapsulation() uint16 {
	if v == natDraft {
		return encapsulationUDPTransportDraft
	}
	return encapsulationUDPTransport
}

// Vendor IDs by which a peer says what it knows.
var (
	vendorRFC3947       = unhex("4a131c81070358455c5728f20e95452f")
	vendorNATDraft03    = unhex("7d9419a65310ca6f2c179d9215529d56")
	vendorNATDraft02n   = unhex("90cb80913ebb696e086381b5ec427b1f") // with a line feed in what is hashed: Windows, Apple
	vendorNATDraft02    = unhex("cd60464335df21f87cfdb2fc68b6a448")
	vendorDPD           = unhex("afcad71368a1f1c96b8696fc77570100") // RFC 3706 section 5.1
	vendorFragmentation = unhex("4048b7d56ebce88525e7de7f00d6c2d3") // 4 bytes of flags may follow
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// abilities are what a peer's Vendor IDs tell.
type abilities struct {
	nat           natVersion
	dpd           bool
	fragmentation bool
}

func (m *message) abilities() (a abilities) {
	for _, id := range m.all(payloadVendorID) {
		switch {
		case bytes.Equal(id, vendorRFC3947):
			a.nat = natRFC
		case bytes.Equal(id, vendorNATDraft03), bytes.Equal(id, vendorNATDraft02n), bytes.Equal(id, vendorNATDraft02):
			a.nat = max(a.nat, natDraft)
		case bytes.HasPrefix(id, vendorDPD[:14]): // the last two bytes are a version
			a.dpd = true
		case bytes.HasPrefix(id, vendorFragmentation):
			a.fragmentation = true
		}
	}
	return a
}

// addVendorIDs says what we know: as initiator all of it, as responder what the initiator knows too.
func (c *composer) addVendorIDs(nats [][]byte) {
	for _, id := range nats {
		c.add(payloadVendorID, id)
	}
	c.add(payloadVendorID, vendorDPD)
	c.add(payloadVendorID, vendorFragmentation)
}

var initiatorNATs = [][]byte{vendorRFC3947, vendorNATDraft03, vendorNATDraft02n, vendorNATDraft02}

// responderNATs picks the one NAT traversal Vendor ID to answer with, the best that the initiator sent (RFC 3947 section 3.1).
func responderNATs(m *message) [][]byte {
	for _, ours := range initiatorNATs {
		for _, theirs := range m.all(payloadVendorID) {
			if bytes.Equal(ours, theirs) {
				return [][]byte{ours}
			}
		}
	}
	return nil
}
