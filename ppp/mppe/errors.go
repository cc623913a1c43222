package mppe

// Reason tells why MPPE cannot go on.
type Reason uint8

const (
	NoKeys       Reason = iota + 1 // encryption is required, but the login gave no keys
	Refused                        // encryption is required, but the peer does not do it, or not as the policy asks
	WrongKeys                      // no packet ever decrypted to something sensible
	OutOfStep                      // packets decrypted at first, but so many in a row are late or garbled now that it is over
	Unencrypted                    // the peer sends packets of this protocol in clear or in the wrong mode
	BadAgreement                   // option bits that name no way to send packets; a bug of the caller
)

var reasons = [...]struct{ text, advice string }{
	NoKeys: {"encryption is required, but this login method gives no keys",
		`let the server ask for MS-CHAPv2 (auth = ["mschapv2"]), or do without encryption (mppe = "prefer")`},
	Refused: {"encryption is required, but the server refused it",
		`turn MPPE on at the server, allow a shorter key or stateful mode, or do without encryption (mppe = "prefer")`},
	WrongKeys: {"packets decrypt to garbage: the two sides have different keys",
		"the server's authentication backend (RADIUS, for instance) hands out wrong MPPE keys"},
	OutOfStep:    {"lost step with the server's encryption: too many packets missing or damaged", ""},
	Unencrypted:  {"the server sends unencrypted packets, or in another mode, in spite of what was agreed", ""},
	BadAgreement: {"no single key length and no compression agreed on", ""},
}

// Error ends the link, or the attempt to encrypt it.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return "mppe: " + reasons[e.Reason].text }

// Stage is the part of the connection's set-up that failed.
func (e *Error) Stage() string { return "ccp" }

// Advice is one line for the user; it may be empty.
func (e *Error) Advice() string { return reasons[e.Reason].advice }
