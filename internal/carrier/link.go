package carrier

import (
	"time"

	"gateway/ppp"
)

// A Session is what a carrier gives a PPP link: an L2TP session or a PPTP call.
type Session interface {
	ppp.FrameWriter
	// Close ends the session and tells the peer.
	Close(now time.Time)
}

// A Link is one PPP session on one carrier session. It handles the carrier
// session's events (l2tp.SessionHandler, pptp.CallHandler) and belongs to the loop's goroutine.
type Link struct {
	config ppp.Config
	up     ppp.PacketHandler

	session Session
	ppp     *ppp.Session
	now     time.Time // of the call that is being handled
	next    time.Time // the PPP session's deadline
	down    bool
}

// NewLink returns a link whose network layer is up. It does nothing until
// Attach gives it its carrier session.
func NewLink(config ppp.Config, up ppp.PacketHandler) *Link {
	return &Link{config: config, up: up}
}

// Attach makes the PPP session on a carrier session, which need not be
// established yet.
func (k *Link) Attach(session Session) {
	k.session = session
	k.ppp = ppp.New(k.config, session, k)
}

// PPP returns the PPP session, which is nil before Attach.
func (k *Link) PPP() *ppp.Session { return k.ppp }

// Close ends PPP gracefully, and then the carrier session.
func (k *Link) Close(now time.Time) {
	if k.ppp == nil || k.down {
		return
	}
	k.now = now
	k.next = k.ppp.Close(now)
}

// SessionUp starts PPP: the carrier session is established.
func (k *Link) SessionUp(now time.Time) {
	k.now = now
	k.next = k.ppp.Start(now)
}

// HandleFrames takes the PPP frames that came in one batch.
func (k *Link) HandleFrames(now time.Time, frames [][]byte) {
	k.now = now
	k.next = k.ppp.Receive(now, frames)
}

// SessionDown ends PPP: the carrier session is gone. One that ends before
// Attach ends in an error to whoever asked for it.
func (k *Link) SessionDown(now time.Time, err error) {
	if k.ppp != nil && !k.down {
		k.now = now
		k.ppp.LinkDown(now, err)
	}
}

// advance handles the PPP session's deadline.
func (k *Link) advance(now time.Time) {
	if due(k.next, now) {
		k.now = now
		k.next = k.ppp.Advance(now)
	}
}

// Up passes on that the network layer is usable or has changed (ppp.PacketHandler).
func (k *Link) Up(p ppp.Params) { k.up.Up(p) }

// HandlePackets passes on what the peer sent (ppp.PacketHandler).
func (k *Link) HandlePackets(packets [][]byte) { k.up.HandlePackets(packets) }

// Down closes the carrier session and passes on that PPP has ended (ppp.PacketHandler).
func (k *Link) Down(err error) {
	k.down = true
	k.next = time.Time{}
	k.session.Close(k.now)
	k.up.Down(err)
}
