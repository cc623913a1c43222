package udpbatch

import (
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendMessages = 64  // of one sendmmsg
	sendVectors  = 256 // datagrams in all of them together
	sendRetries  = 4   // of a message that met the error of an earlier one
	sendNap      = time.Millisecond
)

// sender is the state of one WriteDatagrams. Senders are pooled: there are as many as goroutines that write at once.
type sender struct {
	*batched
	sendFunc func(fd uintptr)

	to         netip.AddrPort // what name holds
	name       sockaddr
	nameLength uint32

	datagrams [][]byte // those not yet sent
	offset    int
	giveUp    time.Time // when the send buffer has been full for too long; zero until it is full
	err       error

	headers  [sendMessages]mmsghdr
	vectors  [sendVectors]unix.Iovec
	controls [sendMessages]segmentControl
	runs     [sendMessages]int // datagrams in each message
	poll     [1]unix.PollFd
}

// segmentControl is the control message that tells the kernel where to split.
type segmentControl struct {
	header unix.Cmsghdr
	size   uint16
	_      [6]byte // CMSG_SPACE aligns
}

func newSender(b *batched) *sender {
	s := &sender{batched: b}
	s.sendFunc = s.send
	for i := range s.headers {
		s.headers[i].header.Name = (*byte)(unsafe.Pointer(&s.name))
		c := &s.controls[i].header
		c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		c.SetLen(unix.CmsgLen(2))
	}
	return s
}

func (b *batched) write(datagrams [][]byte, offset int, to netip.AddrPort) error {
	s := b.senders.Get().(*sender)
	err := s.write(datagrams, offset, to)
	b.senders.Put(s)
	return err
}

func (s *sender) write(datagrams [][]byte, offset int, to netip.AddrPort) error {
	if to != s.to {
		length, err := encode(&s.name, to, s.family)
		if err != nil {
			s.to = netip.AddrPort{}
			s.counters.sendDrops.Add(uint64(len(datagrams)))
			return err
		}
		s.to, s.nameLength = to, length
	}
	s.datagrams, s.offset, s.giveUp, s.err = datagrams, offset, time.Time{}, nil
	err := s.socket.Control(s.sendFunc)
	if err == nil {
		err = s.err
	}
	s.counters.sendDrops.Add(uint64(len(s.datagrams)))
	s.datagrams, s.err = nil, nil
	return err
}

// send sends all of s.datagrams, or as many as go, and leaves the others there.
func (s *sender) send(fd uintptr) {
	for len(s.datagrams) > 0 {
		planned, vectors := s.plan()
		more := s.submitAll(fd, planned)
		clear(s.vectors[:vectors]) // the buffers are borrowed
		if !more {
			return
		}
	}
}

// plan lays out the next datagrams in as few messages as there may be.
func (s *sender) plan() (messages, vectors int) {
	limit := int(s.gsoLimit.Load())
	for rest := s.datagrams; len(rest) > 0 && messages < sendMessages; messages++ {
		count, size := run(rest, s.offset, limit)
		if vectors+count > sendVectors {
			break
		}
		for i, d := range rest[:count] {
			v := &s.vectors[vectors+i]
			v.Base = unsafe.SliceData(d[s.offset:])
			v.SetLen(len(d) - s.offset)
		}
		h := &s.headers[messages].header
		h.Namelen = s.nameLength
		h.Iov = &s.vectors[vectors]
		h.SetIovlen(count)
		if count > 1 {
			s.controls[messages].size = uint16(size)
			h.Control = (*byte)(unsafe.Pointer(&s.controls[messages]))
			h.SetControllen(unix.CmsgSpace(2))
		} else {
			h.Control = nil
			h.SetControllen(0)
		}
		s.runs[messages] = count
		vectors += count
		rest = rest[count:]
	}
	return messages, vectors
}

// submitAll hands planned messages to the kernel and reports whether to go on: with the next plan, or with a new plan for the
// same datagrams when the kernel would not split a message. Otherwise s.err says why not.
func (s *sender) submitAll(fd uintptr, planned int) bool {
	retries := 0
	for first := 0; first < planned; {
		sent, errno := s.submit(fd, first, planned)
		joined := s.runs[first] > 1
		switch {
		case errno == 0:
			s.sent(first, sent)
			first += sent
			retries = 0
		case errno == unix.EINTR:
		case errno == unix.EAGAIN || errno == unix.ENOBUFS:
			if !s.wait(fd, errno) {
				s.err = ErrSendBufferFull
				return false
			}
		case joined && (errno == unix.EIO || errno == unix.EINVAL):
			s.refuseGSO(int(s.controls[first].size), errno)
			return true
		case fromICMP(errno) && retries < sendRetries:
			// Most likely not ours: the kernel tells an ICMP error to whoever calls next, and once.
			s.errorsWait.Store(true)
			retries++
		case joined && errno == unix.EMSGSIZE:
			s.refuseGSO(int(s.controls[first].size), errno)
			return true
		case errno == unix.EMSGSIZE: // this datagram alone is too long
			s.err = errno
			s.counters.sendDrops.Add(1)
			s.datagrams = s.datagrams[1:]
			first++
			retries = 0
		default:
			s.err = errno
			return false
		}
	}
	return true
}

// submit is one system call.
func (s *sender) submit(fd uintptr, first, planned int) (sent int, errno syscall.Errno) {
	s.counters.sendCalls.Add(1)
	if s.batch && planned-first > 1 {
		return s.kernel.sendmmsg(fd, s.headers[first:planned])
	}
	return 1, s.kernel.sendmsg(fd, &s.headers[first].header)
}

// sent counts messages and takes their datagrams off.
func (s *sender) sent(first, messages int) {
	datagrams, bytes := 0, 0
	for _, n := range s.runs[first : first+messages] {
		datagrams += n
	}
	for _, d := range s.datagrams[:datagrams] {
		bytes += len(d) - s.offset
	}
	s.datagrams = s.datagrams[datagrams:]
	s.counters.sentDatagrams.Add(uint64(datagrams))
	s.counters.sentBytes.Add(uint64(bytes))
}

// wait waits for room in the send buffer and reports whether to try again.
func (s *sender) wait(fd uintptr, errno syscall.Errno) bool {
	now := time.Now()
	if s.giveUp.IsZero() {
		s.giveUp = now.Add(sendPatience)
		s.counters.sendWaits.Add(1)
	}
	left := s.giveUp.Sub(now)
	if left <= 0 {
		return false
	}
	if errno == unix.EAGAIN {
		s.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
		_, err := s.kernel.poll(s.poll[:], int((left+time.Millisecond-1)/time.Millisecond))
		if err == nil && s.poll[0].Revents&unix.POLLOUT != 0 {
			return true
		}
	}
	// Nothing announces the end of ENOBUFS, a full queue of the interface; and a poll comes back at once when an ICMP error waits to be read.
	time.Sleep(min(left, sendNap))
	return true
}
