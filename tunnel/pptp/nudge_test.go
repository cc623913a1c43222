package pptp

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A silentPath loses all that the PNS sends, and notes when it sent acknowledgments without a frame.
func silentPath(c *conversation) (acknowledgments *[]time.Duration) {
	acknowledgments = new([]time.Duration)
	start, want := c.now, greHeader{callID: c.pac.calls[0].ID(), acknowledges: true, ack: 0}
	c.path = func(packets [][]byte) [][]byte {
		for _, p := range packets {
			switch h, _, err := parseGRE(p); {
			case err != nil:
				c.t.Error(err)
			case h == want:
				*acknowledgments = append(*acknowledgments, c.now.Sub(start))
			case !h.sequenced:
				c.t.Errorf("%+v, want %+v", h, want)
			}
		}
		return nil
	}
	return acknowledgments
}

// upAndHeard is a conversation in which the PNS has something to acknowledge, and has done so.
func upAndHeard(t *testing.T) *conversation {
	c := up(t, Config{}, Config{})
	c.pac.send(t, c.pac.calls[0], "hello")
	c.settle()
	c.pass(time.Second)
	return c
}

// pptpd keeps what comes behind a lost packet until it reads another one, 300 ms later or more.
func TestPeerThatOwesAcknowledgmentsIsNudged(t *testing.T) {
	c := upAndHeard(t)
	nudges := silentPath(c)
	c.pns.send(t, c.pns.calls[0], "lost", "lost too")
	c.settle()
	c.pass(time.Minute)
	var want []time.Duration
	for n := nudgeFrom; n <= nudgeUntil; n++ {
		want = append(want, time.Duration(n)*nudgeInterval)
	}
	if diff := cmp.Diff(want, *nudges); diff != "" {
		t.Errorf("after the frames (-want +got):\n%s", diff)
	}

	// It is let be then, until there is something new.
	*nudges = nil
	c.pns.send(t, c.pns.calls[0], "more")
	c.settle()
	c.pass(time.Minute)
	if len(*nudges) != len(want) {
		t.Errorf("%d nudges for the next frame, want %d", len(*nudges), len(want))
	}
}

func TestFramesDoNotKeepNudgesBack(t *testing.T) {
	c := upAndHeard(t)
	nudges := silentPath(c)
	for range 7 { // 350 ms
		c.pns.send(t, c.pns.calls[0], "x")
		c.settle()
		c.pass(50 * time.Millisecond)
	}
	if len(*nudges) != 1 {
		t.Errorf("nudges at %v", *nudges)
	}
}

func TestPeerThatAcknowledgesIsNotNudged(t *testing.T) {
	c := upAndHeard(t)
	sent := c.pns.sent
	for range 100 {
		c.pns.send(t, c.pns.calls[0], "x")
		c.settle()
		c.pass(30 * time.Millisecond)
	}
	c.pass(time.Minute)
	if n := c.pns.sent - sent; n != 100 {
		t.Errorf("%d packets for 100 frames", n)
	}
	if next := c.pns.calls[0].nudge.at; !next.IsZero() {
		t.Error("watches although nothing is owed")
	}
}

func TestNobodyIsNudgedBeforeAnythingCame(t *testing.T) {
	c := up(t, Config{GRETimeout: -1}, Config{})
	nudges := silentPath(c)
	c.pns.send(t, c.pns.calls[0], "x")
	c.settle()
	c.pass(time.Minute)
	if len(*nudges) != 0 {
		t.Errorf("%d acknowledgments of nothing", len(*nudges))
	}
}
