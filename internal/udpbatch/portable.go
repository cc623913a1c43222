package udpbatch

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// portable moves one datagram a call through the net package. It knows nothing of ICMP errors.
type portable struct {
	socket   *net.UDPConn
	counters *counters
	buffer   []byte
	datagram [1][]byte
	message  [1]Message
}

func newPortable(socket *net.UDPConn, _ Config, n *counters) (engine, error) {
	return &portable{socket: socket, counters: n, buffer: make([]byte, 1<<16)}, nil
}

func (p *portable) using() (batch, gso, gro bool) { return false, false, false }

func (p *portable) read() ([]Message, error) {
	n, from, err := p.socket.ReadFromUDPAddrPort(p.buffer)
	if err != nil {
		return nil, err
	}
	p.counters.receiveCalls.Add(1)
	p.counters.receivedDatagrams.Add(1)
	p.counters.receivedBytes.Add(uint64(n))
	p.datagram[0] = p.buffer[:n:n]
	p.message[0] = Message{From: unmap(from), Datagrams: p.datagram[:]}
	return p.message[:], nil
}

func (p *portable) write(datagrams [][]byte, offset int, to netip.AddrPort) error {
	deadline := time.Now().Add(sendPatience)
	if err := p.socket.SetWriteDeadline(deadline); err != nil {
		p.counters.sendDrops.Add(uint64(len(datagrams)))
		return err
	}
	var failed error
	for i, d := range datagrams {
		err := p.writeOne(d[offset:], to, deadline)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EMSGSIZE): // this one alone is too long
			p.counters.sendDrops.Add(1)
			failed = err
		default:
			p.counters.sendDrops.Add(uint64(len(datagrams) - i))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return ErrSendBufferFull
			}
			return err
		}
	}
	return failed
}

func (p *portable) writeOne(datagram []byte, to netip.AddrPort, deadline time.Time) error {
	for {
		p.counters.sendCalls.Add(1)
		_, err := p.socket.WriteToUDPAddrPort(datagram, to)
		if err == nil {
			p.counters.sentDatagrams.Add(1)
			p.counters.sentBytes.Add(uint64(len(datagram)))
			return nil
		}
		if !errors.Is(err, syscall.ENOBUFS) { // the queue of the interface is full, which nothing announces the end of
			return err
		}
		if !time.Now().Before(deadline) {
			return ErrSendBufferFull
		}
		time.Sleep(time.Millisecond)
	}
}
