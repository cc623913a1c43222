package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	readSize  = 256 << 10 // one read of a download
	writeSize = 64 << 10  // one write of an upload
	pacedSize = 16 << 10  // the same with a limit
)

// A stream is one connection that moves bytes.
type stream struct {
	conn  net.Conn
	moved atomic.Int64 // bytes that arrived
}

func down(ctx context.Context, d dialer, o Options) (Figures, error) {
	return bulk(ctx, d, o, (*stream).download)
}

func up(ctx context.Context, d dialer, o Options) (Figures, error) {
	return bulk(ctx, d, o, (*stream).upload)
}

// bulk moves bytes over o.N streams for o.Warm and o.Dur, and measures o.Dur.
func bulk(ctx context.Context, d dialer, o Options, move func(s *stream, bitsPerSecond float64) error) (Figures, error) {
	conns, err := d.dialAll(ctx, o.Target, o.N)
	if err != nil {
		return nil, err
	}
	var (
		streams = make([]stream, o.N)
		group   sync.WaitGroup
		over    atomic.Bool
		failure atomic.Pointer[error]
	)
	for i := range streams {
		s := &streams[i]
		s.conn = conns[i]
		group.Go(func() {
			if err := move(s, o.Mbit*1e6/float64(o.N)); err != nil && !over.Load() {
				failure.CompareAndSwap(nil, &err)
			}
		})
	}
	defer group.Wait()
	defer closeAll(conns)
	defer over.Store(true)

	if err := sleep(ctx, o.Warm); err != nil {
		return nil, err
	}
	f := Figures{"streams": float64(o.N)}
	w, before := openWindow(o.PID), moved(streams)
	if err := sleep(ctx, o.Dur); err != nil {
		return nil, err
	}
	each := moved(streams)
	var total int64
	for i := range each {
		each[i] -= before[i]
		total += each[i]
	}
	w.close(f, total, 0)
	f["bytes"] = float64(total)
	f["gbit_s"] = float64(total) * 8 / 1e9 / f.Get("seconds")
	if o.N > 1 {
		f["jain"] = jain(each)
	}
	if err := failure.Load(); err != nil {
		f["error"] = (*err).Error()
	}
	if total == 0 {
		return f, errors.New("no bytes moved")
	}
	return f, nil
}

func moved(streams []stream) (bytes []int64) {
	for i := range streams {
		bytes = append(bytes, streams[i].moved.Load())
	}
	return bytes
}

// jain is Jain's fairness index: 1 if all streams got the same, 1/n if one got all.
func jain(bytes []int64) float64 {
	sum, squares := 0.0, 0.0
	for _, b := range bytes {
		sum += float64(b)
		squares += float64(b) * float64(b)
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(bytes)) * squares)
}

// download reads until the connection is closed.
func (s *stream) download(bitsPerSecond float64) error {
	if _, err := fmt.Fprintf(s.conn, "D 0 %.0f\n", bitsPerSecond); err != nil {
		return err
	}
	buf := make([]byte, readSize)
	for {
		n, err := s.conn.Read(buf)
		s.moved.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// upload writes until the connection is closed. What the far end says it has
// counts.
func (s *stream) upload(bitsPerSecond float64) error {
	var acknowledgements sync.WaitGroup
	defer acknowledgements.Wait()
	acknowledgements.Go(s.readTotals)
	if _, err := io.WriteString(s.conn, "U\n"); err != nil {
		return err
	}
	buf := make([]byte, writeSize)
	for i := range buf {
		buf[i] = byte(i*7 + i>>8)
	}
	if bitsPerSecond > 0 {
		buf = buf[:pacedSize]
	}
	for start, sent := time.Now(), 0; ; {
		if bitsPerSecond > 0 {
			time.Sleep(time.Duration(float64(sent)*8e9/bitsPerSecond) - time.Since(start))
		}
		n, err := s.conn.Write(buf)
		if err != nil {
			return err
		}
		sent += n
	}
}

func (s *stream) readTotals() {
	var total [8]byte
	for {
		if _, err := io.ReadFull(s.conn, total[:]); err != nil {
			return
		}
		s.moved.Store(int64(binary.BigEndian.Uint64(total[:])))
	}
}
