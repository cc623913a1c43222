package ike

import (
	"crypto/sha256"
	"net/netip"
	"time"
)

// retransmitAfter are the waits for an answer, one after each sending; then the peer is given up.
var retransmitAfter = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}

// suspiciousWait is how long a genuine answer is still waited for after one that anyone could have sent.
const suspiciousWait = 3 * time.Second

// A transmission is the last message sent in an exchange. IKE acknowledges nothing: whoever waits for an answer repeats the same bytes, and
// whoever hears a message again repeats what it had answered (RFC 2408 section 5.1).
type transmission struct {
	message    []byte
	to         netip.AddrPort
	marker     bool
	fragmented bool
	tries      int
	due        time.Time // of the next try; zero: no answer is awaited
	limit      time.Time // zero: as long as there are tries

	pending  [sha256.Size]byte // digest of the message that the next one sent answers
	answered [sha256.Size]byte // and of that which the last one sent answers; zero: none
}

// send sends a message of the exchange. With await it is repeated until the next send or done.
func (t *transmission) send(e *Endpoint, now time.Time, message []byte, await bool) {
	t.message, t.tries, t.due, t.limit = message, 0, time.Time{}, time.Time{}
	t.answered, t.pending = t.pending, [sha256.Size]byte{}
	if await {
		t.due = now.Add(retransmitAfter[0])
	}
	e.write(message, t.marker, t.to, t.fragmented)
}

// heard notes the message that the next send answers. What ends an exchange has no answer, and its repetition must not have one either: two
// sides that answer each other's repetitions would never come to an end.
func (t *transmission) heard(raw []byte) { t.pending = sha256.Sum256(raw) }

// unheard takes heard back: the message was no good.
func (t *transmission) unheard() { t.pending = [sha256.Size]byte{} }

// answers notes a message that was sent already as the answer to raw.
func (t *transmission) answers(raw, message []byte) {
	t.answered, t.message = sha256.Sum256(raw), message
}

// repeats sends the answer again if raw is the message that it answers, and tells whether it is.
func (t *transmission) repeats(e *Endpoint, raw []byte) bool {
	if t.message == nil || t.answered != sha256.Sum256(raw) {
		return false
	}
	e.write(t.message, t.marker, t.to, t.fragmented)
	return true
}

// done says that no answer is awaited any more. The message is kept for repeats.
func (t *transmission) done() { t.due, t.limit = time.Time{}, time.Time{} }

// advance repeats the message if it is time, and tells whether to give up.
func (t *transmission) advance(e *Endpoint, now time.Time) (failed bool) {
	if due(t.limit, now) {
		return true
	}
	if !due(t.due, now) {
		return false
	}
	if t.tries++; t.tries == len(retransmitAfter) {
		return true
	}
	t.due = now.Add(retransmitAfter[t.tries])
	e.write(t.message, t.marker, t.to, t.fragmented)
	return false
}

// hurry shortens the wait.
func (t *transmission) hurry(now time.Time) {
	if !t.due.IsZero() {
		t.limit = earlier(t.limit, now.Add(suspiciousWait))
	}
}

func (t *transmission) deadline() time.Time { return earlier(t.due, t.limit) }
