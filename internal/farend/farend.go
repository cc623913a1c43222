// Package farend is the traffic server behind a proxy or tunnel under test. It
// runs on any net.Listener, so that the same code serves kernel TCP and an
// in-process network stack.
//
// The client sends one line, which gives the connection its role:
//
//	D <n> [<bits/s>]\n
//	         download: the server writes n bytes of noise (0: until the client
//	         closes), at most at that rate
//	U\n      upload: the server reads until end of file; after each 256 KiB
//	         and at the end it writes its running total (8 bytes, big endian)
//	E\n      echo: every byte comes back
//
// Over UDP, every datagram comes back.
package farend

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// AckEvery is how many received bytes an upload is acknowledged after.
const AckEvery = 256 << 10

const (
	chunk     = 64 << 10 // one write of a download
	pacedStep = 16 << 10 // one write of a download with a rate
	maxLine   = 512
	idleLimit = 10 * time.Minute
)

// noise is what downloads consist of.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 1<<20)
	rand.New(rand.NewSource(1)).Read(b)
	return b
})

// text is what compresses well: the same words again and again.
var text = sync.OnceValue(func() []byte {
	const words = "the quick brown fox jumps over the lazy dog 0123456789 "
	return bytes.Repeat([]byte(words), 1<<20/len(words))
})

// Content is what bulk transfers consist of: a megabyte of noise, or of text that
// compresses well. It is shared and must not be changed.
func Content(compressible bool) []byte {
	if compressible {
		return text()
	}
	return noise()
}

// A Server is a far end. The zero value is ready.
type Server struct {
	Text bool // downloads are text that compresses well, not noise
}

// Serve accepts connections until the listener fails, and waits for none of them.
func Serve(l net.Listener) error { return Server{}.Serve(l) }

// Handle serves one connection and closes it.
func Handle(c net.Conn) { Server{}.Handle(c) }

// Serve accepts connections until the listener fails, and waits for none of them.
func (s Server) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.Handle(c)
	}
}

// A connection ends when nothing has moved for idleLimit. Its deadline is
// renewed now and then only, as each renewal costs as much as a small write.
type connection struct {
	net.Conn
	renewed time.Time
}

func (c *connection) renew() {
	if now := time.Now(); now.Sub(c.renewed) > idleLimit/10 {
		c.renewed = now
		c.SetDeadline(now.Add(idleLimit))
	}
}

// Handle serves one connection and closes it.
func (s Server) Handle(conn net.Conn) {
	defer conn.Close()
	c := &connection{Conn: conn}
	c.renew()
	reader := bufio.NewReaderSize(c, maxLine)
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return
	}
	switch role := fields[0]; {
	case role[0] == 'D':
		args := append(strings.Fields(string(line[1:])), "0", "0")
		n, _ := strconv.ParseInt(args[0], 10, 64)
		rate, _ := strconv.ParseFloat(args[1], 64)
		download(c, Content(s.Text), n, rate)
	case role == "U":
		upload(c, reader)
	case role == "E":
		// Not io.Copy: the copy must not wait for a full buffer.
		echo(c, reader)
	}
}

// download writes n bytes (0: without end) of content, over and over, at most
// at rate bits per second (0: no limit).
func download(c *connection, content []byte, n int64, rate float64) {
	start := time.Now()
	for off, sent := 0, int64(0); n == 0 || sent < n; {
		c.renew()
		size := chunk
		if rate > 0 {
			size = pacedStep
			pause := float64(sent)*8/rate - time.Since(start).Seconds()
			if pause > idleLimit.Seconds() {
				return // a rate that is none: nobody waits so long
			}
			time.Sleep(time.Duration(pause * float64(time.Second)))
		}
		if n != 0 {
			size = int(min(int64(size), n-sent))
		}
		if off+size > len(content) {
			off = 0
		}
		w, err := c.Write(content[off : off+size])
		if err != nil {
			return
		}
		off += w
		sent += int64(w)
	}
}

func upload(c *connection, reader io.Reader) {
	buf := make([]byte, AckEvery)
	var total, acked uint64
	count := make([]byte, 8)
	acknowledge := func() bool {
		acked = total
		binary.BigEndian.PutUint64(count, total)
		_, err := c.Write(count)
		return err == nil
	}
	for {
		c.renew()
		n, err := reader.Read(buf)
		total += uint64(n)
		if err != nil {
			acknowledge()
			return
		}
		if total-acked >= AckEvery && !acknowledge() {
			return
		}
	}
}

func echo(c *connection, reader io.Reader) {
	buf := make([]byte, pacedStep)
	for {
		c.renew()
		n, err := reader.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// ServeUDP returns every datagram to its sender until the socket fails.
func ServeUDP(c net.PacketConn) error {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		c.WriteTo(buf[:n], from)
	}
}
