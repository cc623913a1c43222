package mppe

import (
	"bytes"
	stdrc4 "crypto/rc4"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// peer is one direction of a stateful peer, modelled in its own words on what RFC 3078 says and FreeBSD does, or on what
// Linux does where it differs.
type peer struct {
	t       *testing.T
	linux   bool
	key     sessionKey
	stream  *stdrc4.Cipher
	count   uint16 // of the next packet
	reset   bool   // sender: a Reset-Request is to be answered
	discard bool   // receiver
}

func newPeer(t *testing.T, linux bool, start StartKey) *peer {
	p := &peer{t: t, linux: linux, key: newSessionKey(start, Key128)}
	p.restart()
	return p
}

// restart sets up the cipher with the current key.
func (p *peer) restart() {
	var err error
	if p.stream, err = stdrc4.NewCipher(p.key.key[:]); err != nil {
		p.t.Fatal(err)
	}
}

// change sets up the cipher with the next key.
func (p *peer) change() {
	var c rc4
	p.key.rekey(&c)
	p.restart()
}

func (p *peer) send(packet []byte) []byte {
	header := 0x1000 | p.count
	flag := p.count&0xff == 0xff
	switch {
	case p.linux && (flag || p.reset):
		header |= 0x8000
		p.change()
	case flag:
		p.change()
		if p.reset {
			header |= 0x8000
		}
	case p.reset:
		header |= 0x8000
		p.restart()
	}
	p.reset = false
	p.count = (p.count + 1) & 0xfff
	data := append(binary.BigEndian.AppendUint16(nil, header), packet...)
	p.stream.XORKeyStream(data[2:], data[2:])
	return data
}

// receive returns nil for a packet that is dropped, with a Reset-Request if wantReset.
func (p *peer) receive(data []byte) (packet []byte, wantReset bool) {
	header := binary.BigEndian.Uint16(data)
	count, flushed := header&0xfff, header&0x8000 != 0
	open := p.receiveRFC
	if p.linux {
		open = p.receiveLinux
	}
	if !open(count, flushed) {
		return nil, true
	}
	p.count = (count + 1) & 0xfff
	packet = bytes.Clone(data[2:])
	p.stream.XORKeyStream(packet, packet)
	return packet, false
}

func (p *peer) receiveRFC(count uint16, flushed bool) bool {
	if flushed {
		for p.count != count {
			if p.count&0xff == 0xff {
				p.change()
			}
			p.count = (p.count + 1) & 0xfff
		}
		p.restart()
	}
	if p.count != count {
		return false
	}
	if count&0xff == 0xff {
		p.change()
	}
	return true
}

func (p *peer) receiveLinux(count uint16, flushed bool) bool {
	if count&0xff == 0xff && !flushed {
		p.t.Fatal("a flag packet without the flushed bit: Linux would count that as an attack")
	}
	switch {
	case !p.discard && count != p.count:
		p.discard = true // even if it is flushed
		return false
	case p.discard && !flushed:
		return false
	}
	for p.discard && count>>8 != p.count>>8 {
		p.change()
		p.count = (p.count + 0x100) & 0xfff
	}
	p.discard = false
	if flushed {
		p.change()
	}
	return true
}

var lossRates = []int{0, 300, 40, 8} // one packet in so many is lost; 0 is none

func forEachPeer(t *testing.T, f func(t *testing.T, linux bool, lost func() bool)) {
	for _, linux := range []bool{false, true} {
		for _, rate := range lossRates {
			t.Run(fmt.Sprintf("linux=%v/loss=%d", linux, rate), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(rate), 4))
				f(t, linux, func() bool { return rate > 0 && r.IntN(rate) == 0 })
			})
		}
	}
}

// RFC 3078 section 8.2 and Linux disagree about the key after a Reset-Request; both must be able to read us.
func TestPeersOfBothKindsReadOurStatefulPackets(t *testing.T) {
	forEachPeer(t, func(t *testing.T, linux bool, lost func() bool) {
		keys := sampleKeys(t, true)
		enc, err := NewEncoder(Key128, keys.Send)
		if err != nil {
			t.Fatal(err)
		}
		receiver := newPeer(t, linux, keys.Send)
		read, dropped := 0, 0
		for i := range 3_000 {
			packet := ipPacket(i)
			data := seal(enc, packet)
			if lost() {
				dropped++
				continue
			}
			got, wantReset := receiver.receive(data)
			if got != nil {
				if !bytes.Equal(got, packet) {
					t.Fatalf("packet %d is garbage to the peer", i)
				}
				read++
			}
			if wantReset && !lost() {
				enc.Reset()
			}
		}
		// A loss costs the packet after it, and Linux takes one more.
		if want := 3_000 - 5*dropped; read < want {
			t.Errorf("peer read %d of 3000 packets, %d were lost; want %d", read, dropped, want)
		}
	})
}

func TestStatefulPacketsOfBothKindsOfPeersAreRead(t *testing.T) {
	forEachPeer(t, func(t *testing.T, linux bool, lost func() bool) {
		keys := sampleKeys(t, true)
		dec, err := NewDecoder(Key128, keys.Send)
		if err != nil {
			t.Fatal(err)
		}
		sender := newPeer(t, linux, keys.Send)
		read, dropped := 0, 0
		for i := range 3_000 {
			packet := ipPacket(i)
			data := sender.send(packet)
			if lost() {
				dropped++
				continue
			}
			got, _, v := dec.Open(nil, data)
			if v == Opened {
				if !bytes.Equal(got, packet) {
					t.Fatalf("packet %d was opened to garbage", i)
				}
				read++
			}
			if dec.NeedsReset() && !lost() {
				sender.reset = true
			}
		}
		if want := 3_000 - 4*dropped; read < want || dec.Err() != nil {
			t.Errorf("read %d of 3000 packets, %d were lost; want %d; %v", read, dropped, want, dec.Err())
		}
	})
}

// Some senders set the flushed bit on their very first packet, which has the first key (RFC 3078 section 3.1).
func TestFirstPacketMayBeFlushed(t *testing.T) {
	keys := sampleKeys(t, true)
	dec, err := NewDecoder(Key128, keys.Send)
	if err != nil {
		t.Fatal(err)
	}
	sender := newPeer(t, false, keys.Send)
	sender.reset = true
	for i := range 600 {
		if got, _, v := dec.Open(nil, sender.send(ipPacket(i))); v != Opened || !bytes.Equal(got, ipPacket(i)) {
			t.Fatalf("packet %d: %v", i, v)
		}
	}
}

// Linux changes the key with every answer to a Reset-Request. If the answers are lost the receiver has not seen them.
func TestAnswersToResetRequestsMayBeLost(t *testing.T) {
	for lostAnswers := range maxUnseen {
		keys := sampleKeys(t, true)
		dec, err := NewDecoder(Key128, keys.Send)
		if err != nil {
			t.Fatal(err)
		}
		sender := newPeer(t, true, keys.Send)
		for i := range 100 {
			dec.Open(nil, sender.send(ipPacket(i)))
		}
		for range lostAnswers + 1 {
			sender.send(ipPacket(0)) // lost, and so is what it would have told
			if _, _, v := dec.Open(nil, sender.send(ipPacket(1))); v != Lost {
				t.Fatal(v)
			}
			sender.reset = true
		}
		got, _, v := dec.Open(nil, sender.send(ipPacket(2)))
		if v != Opened || !bytes.Equal(got, ipPacket(2)) {
			t.Fatalf("%d answers lost: %v", lostAnswers, v)
		}
	}
}
