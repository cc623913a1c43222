package udpbatch

// What one message may hold when the kernel splits it (UDP_SEGMENT): more gives EMSGSIZE and the loss of all of it.
const (
	maxSegments   = 64    // UDP_MAX_SEGMENTS of Linux 4.18 to 6.10; later kernels take more
	maxPayload    = 65507 // 65535 less the IPv4 and UDP headers (RFC 791 section 3.1, RFC 768)
	maxBufferSize = 1 << 16
)

// cut appends to datagrams the pieces of a message that the kernel joined from datagrams of size bytes, the last one perhaps
// shorter. A size of 0 or less means that nothing was joined. The pieces alias the message but cannot grow into one another.
func cut(datagrams [][]byte, message []byte, size int) [][]byte {
	if size <= 0 {
		size = len(message)
	}
	for len(message) > size {
		datagrams = append(datagrams, message[:size:size])
		message = message[size:]
	}
	return append(datagrams, message[:len(message):len(message)])
}

// run returns how many datagrams, from the first on, make one message that the kernel can split again, and their size: all as long as
// the first, but the last of them perhaps shorter, though not empty. A size above limit is never joined. There must be at least one.
func run(datagrams [][]byte, offset, limit int) (count, size int) {
	size = len(datagrams[0]) - offset
	if size == 0 || size > limit {
		return 1, size
	}
	total := size
	for count = 1; count < min(maxSegments, len(datagrams)); count++ {
		next := len(datagrams[count]) - offset
		total += next
		if next == 0 || next > size || total > maxPayload {
			break
		}
		if next < size {
			return count + 1, size
		}
	}
	return count, size
}
