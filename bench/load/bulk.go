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

	"gateway/internal/farend"
)

const (
	readSize  = 256 << 10 // one read of a download
	writeSize = 64 << 10  // one write of an upload
	pacedSize = 16 << 10  // the same with a limit
)

// A stream is one connection that moves bytes.
type stream struct {
	conn  net.Conn
	text  bool         // what is sent compresses well
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
		s.conn, s.text = conns[i], o.Text
		group.Go(func() {
			if err := move(s, o.Mbit*1e6/float64(o.N)); err != nil && !over.Load() {
				failure.CompareAndSwap(nil, &err)
			}
		})
	}
	defer group.Wait()
	defer closeAll(conns)
	defer over.Store(true)

	pauses := watch(streams)
	defer pauses.stop()
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
	if o.WhenOpen != nil {
		o.WhenOpen()
	}
	f["standstill_ms"] = milliseconds(pauses.stop())
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

// A watcher looks for the longest time in which no stream moves anything.
type watcher struct {
	quit    chan struct{}
	once    sync.Once
	group   sync.WaitGroup
	longest time.Duration
}

// watchEvery is the time between two looks.
const watchEvery = 5 * time.Millisecond

func watch(streams []stream) *watcher {
	w := &watcher{quit: make(chan struct{})}
	w.group.Go(func() { w.run(streams) })
	return w
}

func (w *watcher) run(streams []stream) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var total int64
	last := time.Now()
	for {
		var now int64
		for i := range streams {
			now += streams[i].moved.Load()
		}
		if w.longest = max(w.longest, time.Since(last)); now != total {
			total, last = now, time.Now()
		}
		select {
		case <-w.quit:
			return
		case <-tick.C:
		}
	}
}

// stop ends the watch and returns the longest standstill, also when called again.
func (w *watcher) stop() time.Duration {
	w.once.Do(func() { close(w.quit) })
	w.group.Wait()
	return w.longest
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
	content, size := farend.Content(s.text), writeSize
	if bitsPerSecond > 0 {
		size = pacedSize
	}
	for start, sent := time.Now(), 0; ; {
		if bitsPerSecond > 0 {
			time.Sleep(time.Duration(float64(sent)*8e9/bitsPerSecond) - time.Since(start))
		}
		at := sent % (len(content) - size)
		n, err := s.conn.Write(content[at : at+size])
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
