package udpbatch

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	receiveMessages = 32 // of one recvmmsg
	peerErrorsKept  = 16 // ICMP errors that wait to be told; more are the same news
)

// receiver is the reading half of batched. It belongs to the one goroutine that reads.
type receiver struct {
	*batched
	headers  [receiveMessages]mmsghdr
	vectors  [receiveMessages]unix.Iovec
	names    [receiveMessages]sockaddr
	controls [receiveMessages][8]uint64 // words, for their alignment
	// Each buffer holds the largest message there is, joined or not, so that nothing is ever cut short with GRO or without.
	// The 2 MiB are address space: the pages that no message reaches take no memory.
	buffers [][maxBufferSize]byte

	// The outcome of poll, which is called by the runtime's poller and so cannot return it.
	pollFunc func(fd uintptr) bool
	woken    bool // poll has parked in this Read
	count    int  // messages received
	errno    syscall.Errno

	datagrams [][]byte
	messages  []Message
	starts    []int // in datagrams, of each of messages

	lastName sockaddr // the last source, and what it decodes to
	lastFrom netip.AddrPort

	peerErrors []*PeerError
	errorName  *sockaddr
	errorSpace *[32]uint64 // for the control message of an ICMP error: sock_extended_err and the address of its sender
	errorHead  *unix.Msghdr
}

func (r *receiver) init(b *batched) {
	r.batched = b
	r.pollFunc = r.poll
	r.buffers = make([][maxBufferSize]byte, receiveMessages)
	r.datagrams = make([][]byte, 0, receiveMessages*maxSegments)
	r.messages = make([]Message, 0, receiveMessages)
	r.starts = make([]int, 0, receiveMessages)
	for i := range r.headers {
		h := &r.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		r.vectors[i].Base = &r.buffers[i][0]
		r.vectors[i].SetLen(maxBufferSize)
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&r.controls[i]))
		r.rearm(h)
	}
	r.errorName, r.errorSpace, r.errorHead = new(sockaddr), new([32]uint64), new(unix.Msghdr)
}

// rearm restores what the kernel overwrites in a header.
func (r *receiver) rearm(h *unix.Msghdr) {
	h.Namelen = unix.SizeofSockaddrInet6
	h.SetControllen(int(unsafe.Sizeof(r.controls[0])))
	h.Flags = 0
}

func (b *batched) read() ([]Message, error) { return b.receiver.read() }

func (r *receiver) read() ([]Message, error) {
	for {
		if len(r.peerErrors) > 0 {
			err := r.peerErrors[0]
			r.peerErrors = slices.Delete(r.peerErrors, 0, 1)
			return nil, err
		}
		r.woken, r.count, r.errno = false, 0, 0
		if err := r.socket.Read(r.pollFunc); err != nil {
			return nil, err
		}
		if r.errno != 0 {
			return nil, r.errno
		}
		if messages := r.take(r.count); len(messages) > 0 {
			return messages, nil
		}
	}
}

// poll receives without blocking and reports whether read has something to return; if not, the runtime parks the
// goroutine until the socket has news, and calls again.
func (r *receiver) poll(fd uintptr) bool {
	for {
		r.count, r.errno = r.receive(fd)
		switch {
		case r.errno == 0:
			return true
		case r.errno == unix.EINTR:
		case r.errno == unix.EAGAIN:
			r.errno = 0
			// Woken for nothing: an ICMP error arrived, and a sender was told of it before us.
			told := r.errorsWait.Swap(false)
			if told || r.woken {
				r.drainErrors(fd)
				if len(r.peerErrors) > 0 {
					return true
				}
			}
			r.woken = true
			return false
		case fromICMP(r.errno):
			r.errno = 0
			r.drainErrors(fd)
			if len(r.peerErrors) > 0 {
				return true
			}
		default:
			return true
		}
	}
}

// receive is one system call. The count of messages is 0 if and only if it failed.
func (r *receiver) receive(fd uintptr) (int, syscall.Errno) {
	if r.batch {
		n, errno := r.kernel.recvmmsg(fd, r.headers[:], unix.MSG_DONTWAIT)
		if errno != 0 {
			return 0, errno
		}
		return n, 0
	}
	n, errno := r.kernel.recvmsg(fd, &r.headers[0].header, unix.MSG_DONTWAIT)
	if errno != 0 {
		return 0, errno
	}
	r.headers[0].length = uint32(n)
	return 1, 0
}

// take turns the first count headers into messages and readies them for the next receive.
func (r *receiver) take(count int) []Message {
	if count == 0 {
		return nil
	}
	r.datagrams, r.messages, r.starts = r.datagrams[:0], r.messages[:0], r.starts[:0]
	total := 0
	for i := range r.headers[:count] {
		m := &r.headers[i]
		length := int(m.length)
		total += length
		size, drops := readControl(r.control(i))
		if drops >= 0 {
			r.counters.receiveDrops.Store(uint64(drops))
		}
		if m.header.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || length > maxBufferSize {
			r.counters.receiveTruncated.Add(1)
		} else {
			r.add(r.source(i), r.buffers[i][:length], size)
		}
		r.rearm(&m.header)
	}
	r.counters.receiveCalls.Add(1)
	r.counters.receivedBytes.Add(uint64(total))
	r.counters.receivedDatagrams.Add(uint64(len(r.datagrams)))
	// Only now do the datagrams lie where they will stay.
	end := len(r.datagrams)
	for i := len(r.messages) - 1; i >= 0; i-- {
		start := r.starts[i]
		r.messages[i].Datagrams = r.datagrams[start:end:end]
		end = start
	}
	return r.messages
}

// add files one message of the kernel, cut at size, with the last one if it is from the same source.
func (r *receiver) add(from netip.AddrPort, message []byte, size int) {
	if n := len(r.messages); n == 0 || r.messages[n-1].From != from {
		r.messages = append(r.messages, Message{From: from})
		r.starts = append(r.starts, len(r.datagrams))
	}
	r.datagrams = cut(r.datagrams, message, size)
}

func (r *receiver) source(i int) netip.AddrPort {
	if r.names[i] != r.lastName {
		r.lastName, r.lastFrom = r.names[i], decode(&r.names[i])
	}
	return r.lastFrom
}

// control is the part of the i-th control buffer that the kernel filled.
func (r *receiver) control(i int) []byte {
	space := unsafe.Slice((*byte)(unsafe.Pointer(&r.controls[i])), unsafe.Sizeof(r.controls[i]))
	return space[:min(int(r.headers[i].header.Controllen), len(space))]
}

// readControl finds the size of the datagrams that a message was joined from (UDP_GRO), 0 if it was not, and the count of datagrams that
// the socket has lost so far for want of buffer (SO_RXQ_OVFL), -1 if it is not told.
func readControl(control []byte) (size int, drops int64) {
	drops = -1
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			size = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			drops = int64(binary.NativeEndian.Uint32(data))
		}
		control = rest
	}
	return size, drops
}

// fromICMP tells the errors that answer an earlier datagram, perhaps of another peer, from those of the call at hand.
// They are the values that Linux makes of ICMP types 3, 11 and 12 and of ICMPv6 types 1 to 4.
func fromICMP(e syscall.Errno) bool {
	switch e {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.EPROTO, unix.EACCES, unix.EMSGSIZE:
		return true
	}
	return false
}

// drainErrors empties the socket's error queue: as long as something is in it, the kernel wakes everyone who waits for the socket.
func (r *receiver) drainErrors(fd uintptr) {
	for {
		h := r.errorHead
		*h = unix.Msghdr{
			Name: (*byte)(unsafe.Pointer(r.errorName)), Namelen: unix.SizeofSockaddrInet6,
			Control: (*byte)(unsafe.Pointer(r.errorSpace)),
		}
		h.SetControllen(int(unsafe.Sizeof(*r.errorSpace)))
		_, errno := r.kernel.recvmsg(fd, h, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return
		}
		control := unsafe.Slice((*byte)(unsafe.Pointer(r.errorSpace)), min(uintptr(h.Controllen), unsafe.Sizeof(*r.errorSpace)))
		if e, ok := readICMPError(control); ok {
			r.counters.peerErrors.Add(1)
			r.keep(PeerError{decode(r.errorName), e})
		}
	}
}

// keep queues an error to be told, unless it is no news.
func (r *receiver) keep(e PeerError) {
	for _, old := range r.peerErrors {
		if *old == e {
			return
		}
	}
	if len(r.peerErrors) < peerErrorsKept {
		r.peerErrors = append(r.peerErrors, &e)
	}
}

// readICMPError finds the errno of an error that came by ICMP; the queue holds errors of local origin too, which the sender has seen.
func readICMPError(control []byte) (syscall.Errno, bool) {
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		v4 := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR
		v6 := h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(data) >= int(unsafe.Sizeof(unix.SockExtendedErr{})) {
			// struct sock_extended_err of <linux/errqueue.h>: errno in four bytes, then the origin in one.
			origin := data[4]
			return syscall.Errno(binary.NativeEndian.Uint32(data)), origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6
		}
		control = rest
	}
	return 0, false
}
