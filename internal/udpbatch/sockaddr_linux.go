package udpbatch

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr has room for the address of either family, as the kernel reads and writes it.
type sockaddr = unix.RawSockaddrInet6

// encode writes the address in the form that a socket of the given family takes and returns its length in bytes.
func encode(s *sockaddr, to netip.AddrPort, family int) (uint32, error) {
	addr := to.Addr().Unmap()
	*s = sockaddr{Family: uint16(family), Port: networkOrder(to.Port())}
	switch {
	case family == unix.AF_INET6:
		s.Addr = addr.As16() // an IPv4 address in its mapped form (RFC 4291 section 2.5.5.2)
		s.Scope_id = scopeID(addr.Zone())
		return unix.SizeofSockaddrInet6, nil
	case addr.Is4():
		(*unix.RawSockaddrInet4)(unsafe.Pointer(s)).Addr = addr.As4()
		return unix.SizeofSockaddrInet4, nil
	}
	return 0, syscall.EAFNOSUPPORT
}

// decode reads what the kernel wrote; the zero AddrPort if it is of neither family.
func decode(s *sockaddr) netip.AddrPort {
	port := networkOrder(s.Port)
	switch s.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(s)).Addr), port)
	case unix.AF_INET6:
		addr := netip.AddrFrom16(s.Addr).Unmap()
		if s.Scope_id != 0 && addr.Is6() {
			addr = addr.WithZone(zone(s.Scope_id))
		}
		return netip.AddrPortFrom(addr, port)
	}
	return netip.AddrPort{}
}

// networkOrder swaps between the machine's order of bytes and big endian, either way.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

func scopeID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	id, _ := strconv.ParseUint(zone, 10, 32) // 0, no scope, if it is neither
	return uint32(id)
}

func zone(scopeID uint32) string {
	if i, err := net.InterfaceByIndex(int(scopeID)); err == nil {
		return i.Name
	}
	return strconv.FormatUint(uint64(scopeID), 10)
}
