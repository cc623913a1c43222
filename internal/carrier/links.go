package carrier

import (
	"slices"
	"time"
)

// links are the PPP links of an engine's sessions.
type links []*Link

// add gives a link its carrier session, and keeps it until it is down.
func (l *links) add(link *Link, session Session) {
	link.Attach(session)
	*l = append(*l, link)
}

// advance handles the links' deadlines and forgets those that are down.
func (l *links) advance(now time.Time) {
	for _, link := range *l {
		link.advance(now)
	}
	*l = slices.DeleteFunc(*l, func(link *Link) bool { return link.down })
}

// earliest returns the earliest of a deadline and those of the links.
func (l links) earliest(next time.Time) time.Time {
	for _, link := range l {
		next = Earliest(next, link.next)
	}
	return next
}
