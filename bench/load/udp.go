package load

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"
)

const (
	datagramHeader = 12 // sequence number and slot
	lossAfter      = 150 * time.Millisecond
)

// A flight is o.N datagrams that are under way, each in its slot.
type flight struct {
	conn           net.Conn
	out            []byte // proxy's header, sequence number, slot, padding
	header         int    // bytes of the proxy's header
	slots          []time.Time
	sent, received int64
	ms             []float64
}

// datagrams has o.N datagrams come back, again and again, directly or through
// UDP ASSOCIATE.
func datagrams(ctx context.Context, d dialer, o Options) (Figures, error) {
	to, header := o.Target, []byte(nil)
	switch d.kind {
	case "http":
		return nil, errors.New("an HTTP proxy has no UDP")
	case "socks5":
		control, relay, err := d.associate(ctx)
		if err != nil {
			return nil, err
		}
		defer control.Close()
		to = relay
		// RFC 1928 section 7: reserved, fragment 0, address.
		if header, err = appendSOCKSAddress([]byte{0, 0, 0}, o.Target); err != nil {
			return nil, err
		}
	}
	c, err := net.Dial("udp", to)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	size := max(o.Size, datagramHeader)
	fly := flight{conn: c, out: append(header, make([]byte, size)...), header: len(header), slots: make([]time.Time, o.N)}
	w := openWindow(o.PID)
	if err := fly.run(ctx, w.start.Add(o.Dur)); err != nil {
		return nil, err
	}
	f := Figures{"in_flight": float64(o.N), "size": float64(size), "sent": float64(fly.sent), "received": float64(fly.received),
		"lost": float64(max(0, fly.sent-fly.received-int64(o.N)))}
	w.close(f, 0, fly.received)
	f["echo_s"] = float64(fly.received) / f.Get("seconds")
	f.addPercentiles(fly.ms)
	if fly.received == 0 {
		return f, errors.New("no datagram came back")
	}
	return f, nil
}

// associate opens an association and returns where its datagrams go.
func (d dialer) associate(ctx context.Context) (control net.Conn, relay string, err error) {
	control, err = dialTCP(ctx, d.addr)
	if err != nil {
		return nil, "", err
	}
	control.SetDeadline(time.Now().Add(handshakeTimeout))
	relay, err = d.socks5(control, socksAssociate, "0.0.0.0:0")
	if err != nil {
		control.Close()
		return nil, "", err
	}
	control.SetDeadline(time.Time{})
	// An unspecified address is the proxy's own.
	if host, port, err := net.SplitHostPort(relay); err == nil && net.ParseIP(host).IsUnspecified() {
		proxy, _, _ := net.SplitHostPort(d.addr)
		relay = net.JoinHostPort(proxy, port)
	}
	return control, relay, nil
}

// run keeps all slots in flight until the end.
func (f *flight) run(ctx context.Context, end time.Time) error {
	for slot := range f.slots {
		if err := f.send(slot); err != nil {
			return err
		}
	}
	in := make([]byte, 65536)
	for time.Now().Before(end) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f.conn.SetReadDeadline(time.Now().Add(lossAfter))
		n, err := f.conn.Read(in)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = f.sendLost()
		case err == nil:
			err = f.take(in[:n])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *flight) send(slot int) error {
	payload := f.out[f.header:]
	f.sent++
	binary.BigEndian.PutUint64(payload, uint64(f.sent))
	binary.BigEndian.PutUint32(payload[8:], uint32(slot))
	f.slots[slot] = time.Now()
	_, err := f.conn.Write(f.out)
	return err
}

// sendLost fills the slots whose datagrams have not come back in time.
func (f *flight) sendLost() error {
	for slot, t := range f.slots {
		if time.Since(t) >= lossAfter {
			if err := f.send(slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// take takes a datagram that came back and sends the next one in its slot.
func (f *flight) take(datagram []byte) error {
	size := len(f.out) - f.header
	if len(datagram) < size {
		return nil
	}
	slot := int(binary.BigEndian.Uint32(datagram[len(datagram)-size+8:]))
	if slot >= len(f.slots) {
		return nil
	}
	f.received++
	f.ms = append(f.ms, milliseconds(time.Since(f.slots[slot])))
	return f.send(slot)
}
