package l2tp

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A sentLog is the wire of a delivery under test.
type sentLog struct {
	d    delivery
	now  time.Time
	sent []string
}

func newSentLog(window int) *sentLog {
	l := &sentLog{now: epoch}
	l.d = newDelivery(8, 5, func(sessionID, ns, nr uint16, body []byte) {
		if len(body) == 0 {
			body = []byte("ZLB")
		}
		l.sent = append(l.sent, fmt.Sprintf("%s ns=%d nr=%d", body, ns, nr))
	})
	l.d.setWindow(window)
	return l
}

func (l *sentLog) send(bodies ...string) {
	for _, b := range bodies {
		l.d.send(l.now, outgoing{body: []byte(b)})
	}
}

func (l *sentLog) take() []string {
	sent := l.sent
	l.sent = nil
	return sent
}

func (l *sentLog) receive(ns, nr uint16, body string) (delivered []string, ok bool) {
	ok = l.d.receive(l.now, header{ns: ns, nr: nr}, []byte(body), func(m incoming) { delivered = append(delivered, string(m.body)) })
	return delivered, ok
}

func check(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

// RFC 2661 appendix A: slow start from one message, one more for each acknowledgement.
func TestSlowStart(t *testing.T) {
	l := newSentLog(4)
	l.send("a", "b", "c", "d", "e", "f", "g", "h", "i")
	check(t, "at first", l.take(), []string{"a ns=0 nr=0"})
	l.receive(0, 1, "")
	check(t, "after one", l.take(), []string{"b ns=1 nr=0", "c ns=2 nr=0"})
	l.receive(0, 3, "")
	check(t, "after three", l.take(), []string{"d ns=3 nr=0", "e ns=4 nr=0", "f ns=5 nr=0", "g ns=6 nr=0"})
	l.receive(0, 7, "")
	check(t, "the peer's window is the bound", l.take(), []string{"h ns=7 nr=0", "i ns=8 nr=0"})
	if l.d.cwnd != 4 {
		t.Error("congestion window", l.d.cwnd)
	}
}

func TestWindowOfOne(t *testing.T) {
	l := newSentLog(1)
	l.send("a", "b", "c")
	for i := range uint16(3) {
		if got := l.take(); len(got) != 1 {
			t.Error("in flight:", got)
		}
		l.receive(0, i+1, "")
	}
	if len(l.d.queue) != 0 || !l.d.deadline().IsZero() {
		t.Error("left:", l.d.queue, l.d.deadline())
	}
}

// RFC 2661 section 5.8: same Ns, fresh Nr; 1, 2, 4, 8, 8 s; and only the oldest while the peer is silent.
func TestRetransmission(t *testing.T) {
	l := newSentLog(4)
	l.send("a")
	l.receive(0, 1, "")
	l.send("b", "c")
	l.take()
	var gaps []time.Duration
	for i := range uint16(5) {
		l.receive(i, 1, "x")
		gaps = append(gaps, l.d.retransmitAt.Sub(l.now))
		l.now = l.d.retransmitAt
		l.d.acknowledgeAt = time.Time{}
		if !l.d.advance(l.now, epoch) {
			t.Fatal("gave up early")
		}
		check(t, "retransmission", l.take(), []string{fmt.Sprintf("b ns=1 nr=%d", i+1)})
	}
	if diff := cmp.Diff([]time.Duration{1e9, 2e9, 4e9, 8e9, 8e9}, gaps); diff != "" {
		t.Error(diff)
	}
	l.now = l.d.retransmitAt
	if l.d.advance(l.now, l.now) {
		t.Error("did not give up")
	}
}

func TestAcknowledgementResetsRetransmission(t *testing.T) {
	l := newSentLog(4)
	l.send("a", "b")
	l.now = l.d.retransmitAt
	l.d.advance(l.now, epoch)
	l.receive(0, 1, "")
	if l.d.retries != 0 || l.d.retransmitAt.Sub(l.now) != firstRetransmission {
		t.Error(l.d.retries, l.d.retransmitAt)
	}
}

func TestAfterATimeoutAllThatIsMissingIsSentAgain(t *testing.T) {
	l := newSentLog(4)
	l.d.cwnd = 4
	l.send("a", "b", "c", "d")
	l.take()
	l.now = l.d.retransmitAt
	l.d.advance(l.now, epoch)
	check(t, "the oldest alone", l.take(), []string{"a ns=0 nr=0"})
	l.receive(0, 2, "") // the peer has a and b
	check(t, "then the rest", l.take(), []string{"c ns=2 nr=0", "d ns=3 nr=0"})
}

func TestDuplicatesAreAcknowledgedOnceEach(t *testing.T) {
	l := newSentLog(4)
	l.receive(0, 0, "a")
	if got, ok := l.receive(0, 0, "a"); !ok || got != nil {
		t.Error("delivered twice:", got)
	}
	l.d.advance(l.now, l.now)
	check(t, "acknowledgement", l.take(), []string{"ZLB ns=0 nr=1"})
	l.d.advance(l.now.Add(time.Hour), l.now)
	check(t, "no more", l.take(), nil)
	// "Less than or equal to the last" means the 32768 values before it.
	l.receive(1, 0, "b")
	l.d.acknowledgeAt = time.Time{}
	if got, _ := l.receive(2+32768, 0, "old"); got != nil || l.d.acknowledgeAt.IsZero() {
		t.Error("an old number was not taken for a duplicate")
	}
}

func TestAcknowledgementWaitsForAMessageToCarryIt(t *testing.T) {
	l := newSentLog(4)
	l.receive(0, 0, "a")
	l.d.advance(l.now, l.now)
	check(t, "at once", l.take(), nil)
	l.send("reply")
	check(t, "reply", l.take(), []string{"reply ns=0 nr=1"})
	l.now = l.now.Add(acknowledgeDelay)
	l.d.advance(l.now, l.now)
	check(t, "carried already", l.take(), nil)
	l.receive(1, 1, "b")
	l.now = l.now.Add(acknowledgeDelay)
	l.d.advance(l.now, l.now)
	check(t, "ZLB after the delay", l.take(), []string{"ZLB ns=1 nr=2"})
}

func TestZLBIsNeverAnswered(t *testing.T) {
	l := newSentLog(4)
	for _, ns := range []uint16{0, 1, 5, 65535} {
		l.receive(ns, 0, "")
	}
	if l.d.nr != 0 || !l.d.deadline().IsZero() || l.sent != nil {
		t.Error("a ZLB was answered or took a number")
	}
}

func TestAheadOfSequenceIsKeptInBounds(t *testing.T) {
	l := newSentLog(4)
	for ns := uint16(40); ns > 0; ns-- {
		l.receive(ns, 0, fmt.Sprint(ns))
	}
	if len(l.d.ahead) != l.d.receiveWindow-1 {
		t.Error("kept:", len(l.d.ahead))
	}
	got, _ := l.receive(0, 0, "0")
	check(t, "in order", got, []string{"0", "1", "2", "3", "4", "5", "6", "7"})
	if len(l.d.ahead) != 0 || l.d.nr != 8 {
		t.Error("left:", l.d.ahead)
	}
}

func TestAcknowledgementOfWhatWasNeverSentIsDiscarded(t *testing.T) {
	l := newSentLog(4)
	l.send("a", "b") // b waits
	for _, nr := range []uint16{2, 3, 30000} {
		if got, ok := l.receive(0, nr, "x"); ok || got != nil || len(l.d.queue) != 2 {
			t.Error("accepted nr", nr)
		}
	}
	if got, ok := l.receive(0, 40000, "x"); !ok || len(got) != 1 || len(l.d.queue) != 2 {
		t.Error("an old nr says nothing new, but its message counts")
	}
}

func TestNumbersWrap(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.tunnel()
	p.run(time.Second)
	p.lacTunnel.t.delivery.ns, p.lnsTunnel.t.delivery.nr = 65533, 65533
	p.lnsTunnel.t.delivery.ns, p.lacTunnel.t.delivery.nr = 65534, 65534
	for range 5 {
		p.session()
	}
	p.run(time.Second)
	if p.lacTunnel.t.delivery.ns > 100 || p.lnsTunnel.t.delivery.ns > 100 || p.lac.Stats().BadNumber+p.lns.Stats().BadNumber > 0 {
		t.Error("they did not wrap")
	}
}

func TestQueueIsBounded(t *testing.T) {
	l := newSentLog(4)
	for range maxQueue {
		l.send("x")
	}
	if l.d.send(l.now, outgoing{body: []byte("x")}) {
		t.Error("one more was taken")
	}
	// A peer that asks and never acknowledges is closed.
	a := aloneIn(t, tunnelEstablished, Config{})
	for range maxQueue + 2 {
		d := &a.tunnel.delivery
		inject(a.lac, a.now, addrLNS, header{tunnelID: a.tunnel.id, ns: d.nr, nr: d.oldest()}, body(msgICRQ, attrAssignedSessionID, 7, attrCallSerialNumber, 1))
	}
	if localKind(a.lacTunnel.down) != NoResources || a.tunnel.state != tunnelClosing || len(a.lac.Endpoint.sessions) != 0 {
		t.Error(a.lacTunnel.down)
	}
}

func TestLastMessagePassesThoseThatWait(t *testing.T) {
	l := newSentLog(4)
	l.send("a", "b", "c")
	l.d.sendLast(l.now, outgoing{body: []byte("last")})
	check(t, "sent", l.take(), []string{"a ns=0 nr=0", "last ns=1 nr=0"})
	l.receive(0, 2, "")
	if len(l.d.queue) != 0 {
		t.Error("not acknowledged")
	}
}

func TestReorder(t *testing.T) {
	for _, test := range []struct {
		name             string
		in               []uint16
		want             []string
		flushed          []string // when waiting is over
		late, lost, wait uint64
	}{
		{name: "in order", in: []uint16{0, 1, 2}, want: []string{"0", "1", "2"}},
		{name: "swapped", in: []uint16{1, 0, 3, 2}, want: []string{"0", "1", "2", "3"}, wait: 2},
		{name: "duplicate", in: []uint16{0, 0, 1}, want: []string{"0", "1"}, late: 1},
		{name: "duplicate of a waiting one", in: []uint16{1, 1, 0}, want: []string{"0", "1"}, late: 1, wait: 1},
		{name: "lost", in: []uint16{0, 2, 3}, want: []string{"0"}, flushed: []string{"2", "3"}, lost: 1, wait: 2},
		{name: "two gaps", in: []uint16{0, 2, 4, 1}, want: []string{"0", "1", "2"}, flushed: []string{"4"}, lost: 1, wait: 2},
		{name: "beyond the window", in: []uint16{0, 2, 9, 10, 1}, want: []string{"0", "2", "9", "10"}, late: 1, lost: 7, wait: 1},
		{name: "far ahead at the start", in: []uint16{1000, 1001}, want: []string{"1000", "1001"}, lost: 1000},
		{name: "wrap", in: []uint16{30000, 60000, 65535, 1, 0}, want: []string{"30000", "60000", "65535", "0", "1"}, lost: 30000 + 29999 + 5534, wait: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r reorder
			var frames [][]byte
			var got []string
			up := func() {
				got = append(got, texts(frames)...)
				frames = frames[:0]
			}
			for _, ns := range test.in {
				frame := []byte(fmt.Sprint(ns))
				if r.isNext(ns) {
					frames = r.passed(append(frames, frame))
				} else {
					up()
					frames = r.hold(epoch, ns, frame, frames)
				}
				up()
			}
			check(t, "passed on", got, test.want)
			if (r.held > 0) == r.release.IsZero() {
				t.Error("held:", r.held, "release:", r.release)
			}
			check(t, "flushed", texts(r.flush(nil)), test.flushed)
			if r.late.Load() != test.late || r.lost.Load() != test.lost || r.reversed.Load() != test.wait || r.held != 0 || !r.release.IsZero() {
				t.Error("late, lost, waited:", r.late.Load(), r.lost.Load(), r.reversed.Load())
			}
		})
	}
}

// A peer that begins to count anew is followed after a while, not dropped for ever.
func TestReorderFollowsACountThatBeganAnew(t *testing.T) {
	var r reorder
	r.next = 20000
	passed := 0
	for ns := range uint16(2 * maxLateRun) {
		if r.isNext(ns) {
			passed += len(r.passed([][]byte{{1}}))
		} else {
			passed += len(r.hold(epoch, ns, []byte{1}, nil))
		}
	}
	if passed != maxLateRun+1 {
		t.Error("passed on:", passed)
	}
}
