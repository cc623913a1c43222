package ppp

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The state transition table as it stands in RFC 1661 section 4.1, transcribed by hand. "p", "r" and "x" are the marks
// of the passive option, the restart option and the crossed connection.
const rfcTable = `
 Up    2      irc,scr/6  -          -              -      -      -          -          -          -
 Down  -      -          0          tls/1          0      1      1          1          1          tld/1
 Open  tls/1  1          irc,scr/6  3r             5r     5r     6          7          8          9r
 Close 0      tlf/0      2          2              4      4      irc,str/4  irc,str/4  irc,str/4  tld,irc,str/4
 TO+   -      -          -          -              str/4  str/5  scr/6      scr/6      scr/8      -
 TO-   -      -          -          -              tlf/2  tlf/3  tlf/3p     tlf/3p     tlf/3p     -
 RCR+  -      -          sta/2      irc,scr,sca/8  4      5      sca/8      sca,tlu/9  sca/8      tld,scr,sca/8
 RCR-  -      -          sta/2      irc,scr,scn/6  4      5      scn/6      scn/7      scn/6      tld,scr,scn/6
 RCA   -      -          sta/2      sta/3          4      5      irc/7      scr/6x     irc,tlu/9  tld,scr/6x
 RCN   -      -          sta/2      sta/3          4      5      irc,scr/6  scr/6x     irc,scr/8  tld,scr/6x
 RTR   -      -          sta/2      sta/3          sta/4  sta/5  sta/6      sta/6      sta/6      tld,zrc,sta/5
 RTA   -      -          2          3              tlf/2  tlf/3  6          6          8          tld,scr/6
 RUC   -      -          scj/2      scj/3          scj/4  scj/5  scj/6      scj/7      scj/8      scj/9
 RXJ+  -      -          2          3              4      5      6          6          8          9
 RXJ-  -      -          tlf/2      tlf/3          tlf/2  tlf/3  tlf/3      tlf/3      tlf/3      tld,irc,str/5
 RXR   -      -          2          3              4      5      6          7          8          ser/9
`

// A cell is one entry of the RFC's table.
type cell struct {
	event    event
	state    state
	actions  []string
	next     state
	possible bool
}

func rfcCells(t *testing.T) []cell {
	t.Helper()
	var cells []cell
	for row, line := range strings.Split(strings.TrimSpace(rfcTable), "\n") {
		fields := strings.Fields(line)
		if fields[0] != event(row).String() || len(fields) != 1+int(numStates) {
			t.Fatalf("row %d: %q", row, line)
		}
		for column, text := range fields[1:] {
			c := cell{event: event(row), state: state(column), next: state(column)}
			if text != "-" {
				c.possible = true
				next := text
				if before, after, found := strings.Cut(text, "/"); found {
					c.actions, next = strings.Split(before, ","), after
				}
				c.next = state(next[0] - '0')
			}
			// In Closing, Open has the number of Stopping, 5: not a misprint (RFC 1661 section 4.1).
			cells = append(cells, c)
		}
	}
	if len(cells) != 160 {
		t.Fatalf("%d cells, want 160", len(cells))
	}
	return cells
}

// A recordingLayer notes what the automaton does.
type recordingLayer struct{ done []string }

func (r *recordingLayer) appendRequest(dst []byte) []byte           { return dst }
func (r *recordingLayer) beginRequest()                             {}
func (r *recordingLayer) judge(option) (verdict, []byte)            { return accept, nil }
func (r *recordingLayer) appendMissing(dst []byte) []byte           { return dst }
func (r *recordingLayer) naked(time.Time, option)                   {}
func (r *recordingLayer) rejected(time.Time, option)                {}
func (r *recordingLayer) receiveCode(time.Time, controlPacket) bool { return false }
func (r *recordingLayer) up(time.Time)                              { r.done = append(r.done, "tlu") }
func (r *recordingLayer) down(time.Time)                            { r.done = append(r.done, "tld") }
func (r *recordingLayer) finished(time.Time)                        { r.done = append(r.done, "tlf") }

func (r *recordingLayer) send(_ uint16, packet []byte) {
	names := map[uint8]string{
		codeConfigureRequest: "scr", codeConfigureAck: "sca", codeConfigureNak: "scn", codeTerminateRequest: "str",
		codeTerminateAck: "sta", codeCodeReject: "scj", codeEchoReply: "ser",
	}
	r.done = append(r.done, names[packet[0]])
}

func newRecording() (*automaton, *recordingLayer) {
	r := &recordingLayer{}
	return &automaton{
		protocol: protocolIPCP, name: "test", layer: r, send: r.send,
		timers: Timers{}.withDefaults(), log: slog.New(slog.DiscardHandler),
	}, r
}

// TestTransitionTable: all 160 cells of RFC 1661 section 4.1, as seen from outside: the state that is entered, what is
// sent, what the layer is told, and the Restart counter and timer.
func TestTransitionTable(t *testing.T) {
	const someCount = 7
	replies := map[event]uint8{
		eventGoodRequest: codeConfigureAck, eventBadRequest: codeConfigureNak,
		eventUnknownCode: codeCodeReject, eventEchoOrSimilar: codeEchoReply,
	}
	for _, c := range rfcCells(t) {
		t.Run(fmt.Sprintf("%s in %s", c.event, c.state), func(t *testing.T) {
			a, r := newRecording()
			a.state, a.restarts = c.state, someCount
			if c.state.timed() {
				a.deadline = epoch.Add(time.Second)
			}
			if code, ok := replies[c.event]; ok {
				a.reply = []byte{code, 1, 0, 4}
			}
			a.event(epoch, c.event, controlPacket{id: 1})

			if a.state != c.next {
				t.Errorf("entered %s, want %s", a.state, c.next)
			}
			var visible []string
			restarts := someCount
			sends, restart := false, 3*time.Second
			for _, action := range c.actions {
				switch action {
				case "irc":
					restarts = 10
					if c.next == stateClosing || c.next == stateStopping {
						restarts = 2
					}
				case "zrc":
					restarts, sends = 0, true
				case "tls":
				case "scr", "str":
					restarts--
					sends = true
					if action == "scr" { // a new request is repeated sooner
						restart = 500 * time.Millisecond
					}
					visible = append(visible, action)
				default:
					visible = append(visible, action)
				}
			}
			if diff := cmp.Diff(visible, r.done); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
			if a.restarts != restarts {
				t.Errorf("Restart counter %d, want %d", a.restarts, restarts)
			}
			switch {
			case c.next < stateClosing || c.next == stateOpened:
				if c.possible && !a.deadline.IsZero() {
					t.Errorf("the Restart timer runs in %s", c.next)
				}
			case sends && !a.deadline.Equal(epoch.Add(restart)):
				t.Errorf("the Restart timer was not started: %v", a.deadline)
			}
			if got := transitions[c.event][c.state].possible; got != c.possible {
				t.Errorf("possible: %v, want %v", got, c.possible)
			}
			if got := transitions[c.event][c.state].actions&tls != 0; got != strings.Contains(strings.Join(c.actions, ","), "tls") {
				t.Errorf("tls: %v", got)
			}
		})
	}
}

// TestMaxConfigure: 10 Configure-Requests, soon 3 s apart, then the layer gives up (RFC 1661 section 4.6).
func TestMaxConfigure(t *testing.T) {
	a, r := newRecording()
	a.open(epoch)
	a.lowerUp(epoch)
	now := epoch
	for _, wait := range []time.Duration{500, 1000, 2000, 3000, 3000, 3000, 3000, 3000, 3000, 3000} {
		if got := a.deadline.Sub(now); got != wait*time.Millisecond {
			t.Fatalf("next after %v, want %v ms", got, int(wait))
		}
		now = a.deadline
		a.advance(now)
	}
	want := append(slicesRepeat("scr", 10), "tlf")
	if diff := cmp.Diff(want, r.done); diff != "" {
		t.Error(diff)
	}
	if a.state != stateStopped || !a.deadline.IsZero() {
		t.Errorf("%s after %v", a.state, now.Sub(epoch))
	}
}

// TestMaxTerminate: 2 Terminate-Requests, then the layer is closed (RFC 1661 section 4.6).
func TestMaxTerminate(t *testing.T) {
	a, r := newRecording()
	a.state = stateOpened
	a.close(epoch)
	for !a.deadline.IsZero() {
		a.advance(a.deadline)
	}
	if diff := cmp.Diff([]string{"tld", "str", "str", "tlf"}, r.done); diff != "" || a.state != stateClosed {
		t.Error(a.state, diff)
	}
}

func slicesRepeat(s string, n int) (list []string) {
	for range n {
		list = append(list, s)
	}
	return list
}

// TestRetransmissionKeepsItsIdentifier: a late answer to the first copy counts (RFC 1661 section 5.1).
func TestRetransmissionKeepsItsIdentifier(t *testing.T) {
	a, _ := newRecording()
	a.open(epoch)
	a.lowerUp(epoch)
	id := a.id
	a.advance(a.deadline)
	if a.id != id {
		t.Errorf("identifier %d after %d", a.id, id)
	}
	a.receive(epoch, []byte{codeConfigureAck, id, 0, 4})
	if a.state != stateAckRcvd {
		t.Errorf("state %s", a.state)
	}
}

// TestForeignAnswersAreDropped: wrong identifier, changed options, options never asked for, second copies
// (RFC 1661 sections 5.2 to 5.4).
func TestForeignAnswersAreDropped(t *testing.T) {
	tests := map[string][]byte{
		"ack of another identifier":     {codeConfigureAck, 99, 0, 4},
		"ack with options not asked":    {codeConfigureAck, 1, 0, 6, 3, 2},
		"nak of another identifier":     {codeConfigureNak, 99, 0, 6, 3, 2},
		"nak with a bad option":         {codeConfigureNak, 1, 0, 6, 3, 1},
		"reject of what was not asked":  {codeConfigureReject, 1, 0, 6, 3, 2},
		"reject with a bad option":      {codeConfigureReject, 1, 0, 5, 3},
		"length beyond the packet":      {codeConfigureAck, 1, 0, 5},
		"length below the header":       {codeConfigureAck, 1, 0, 3},
		"no header":                     {codeConfigureAck, 1, 0},
		"request with a bad option":     {codeConfigureRequest, 1, 0, 6, 3, 0},
		"request with a cut-off option": {codeConfigureRequest, 1, 0, 6, 3, 9},
	}
	for name, packet := range tests {
		t.Run(name, func(t *testing.T) {
			a, r := newRecording()
			a.open(epoch)
			a.lowerUp(epoch)
			r.done = nil
			if a.receive(epoch, packet) {
				t.Error("taken")
			}
			if a.state != stateReqSent || len(r.done) > 0 {
				t.Errorf("%s %v", a.state, r.done)
			}
		})
	}
	a, _ := newRecording()
	a.open(epoch)
	a.lowerUp(epoch)
	ack := []byte{codeConfigureAck, 1, 0, 4}
	if !a.receive(epoch, ack) || a.receive(epoch, ack) || a.state != stateAckRcvd {
		t.Errorf("second copy of an Ack: %s", a.state)
	}
}

// TestRepeatedRequestOfAnOpenLayer: a copy from the network is acknowledged again; after the Restart time the same
// request means that the peer begins anew.
func TestRepeatedRequestOfAnOpenLayer(t *testing.T) {
	request := []byte{codeConfigureRequest, 5, 0, 4}
	open := func() (*automaton, *recordingLayer) {
		a, r := newRecording()
		a.open(epoch)
		a.lowerUp(epoch)
		a.receive(epoch, []byte{codeConfigureAck, a.id, 0, 4})
		a.receive(epoch, request)
		if a.state != stateOpened {
			t.Fatal(a.state)
		}
		r.done = nil
		return a, r
	}
	a, r := open()
	a.receive(epoch.Add(time.Second), request)
	if diff := cmp.Diff([]string{"sca"}, r.done); diff != "" || a.state != stateOpened {
		t.Errorf("copy: %s %s", a.state, diff)
	}
	a, r = open()
	a.receive(epoch.Add(3*time.Second), request)
	if diff := cmp.Diff([]string{"tld", "scr", "sca"}, r.done); diff != "" || a.state != stateAckSent {
		t.Errorf("anew: %s %s", a.state, diff)
	}
	a, _ = open()
	a.receive(epoch.Add(time.Second), []byte{codeConfigureRequest, 6, 0, 4})
	if a.state != stateAckSent {
		t.Errorf("another identifier: %s", a.state)
	}
}

// TestLimiter: a burst, then one for each interval.
func TestLimiter(t *testing.T) {
	var l limiter
	allowed := func(at time.Duration, tries int) (n int) {
		for range tries {
			if l.allow(epoch.Add(at), 5, time.Second) {
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		at   time.Duration
		want int
	}{{0, 5}, {500 * time.Millisecond, 0}, {time.Second, 1}, {3 * time.Second, 2}, {time.Hour, 5}} {
		if got := allowed(step.at, 10); got != step.want {
			t.Errorf("at %v: %d allowed, want %d", step.at, got, step.want)
		}
	}
}
