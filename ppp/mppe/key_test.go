package mppe

import (
	stdrc4 "crypto/rc4"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 3079 section 3.5: what MS-CHAPv2 gives for user "User", password "clientPass".
const sampleMaster = "FDECE3717A8C838CB388E527AE3CDD31"

func sampleKeys(t testing.TB, client bool) Keys {
	return KeysFromMaster([16]byte(unhex(t, sampleMaster)), client)
}

// RFC 3079 section 3.5; the samples are the keys that the server sends with. The others were computed independently.
func TestKeysFromMasterGiveTheSamplesOfRFC3079(t *testing.T) {
	tests := []struct {
		bits                    Bits
		client                  bool
		start, session, message string
	}{
		{Key40, false, "8b7cdc149b993a1b", "d1269ec49fa62e3e", "929137917e5803d668d75898"},
		{Key56, false, "8b7cdc149b993a1b", "d15c00c49fa62e3e", "3f106833fa448da842bc57b8"},
		{Key128, false, "8b7cdc149b993a1ba118cb153f56dccb", "405cb2247a7956e6e211007ae27b22d4", "81848317df68846272fb5abe"},
		{Key40, true, "d5f0e9521e3ea958", "d1269ed2ae999038", "da2ffc50b22612d41fa7f2bb"},
		{Key128, true, "d5f0e9521e3ea9589645e86051c82226", "49d11d0f0cc6befba2a9b4b688f91eee", "b56ca95695e14acb15f1ba3c"},
	}
	for _, test := range tests {
		keys := sampleKeys(t, test.client)
		if other := sampleKeys(t, !test.client); keys.Send != other.Receive || keys.Receive != other.Send {
			t.Errorf("client=%v: the other side's keys are not the same the other way round", test.client)
		}
		checkSessionKey(t, keys.Send, test.bits, test.start, test.session)

		k := newSessionKey(keys.Send, test.bits)
		var c rc4
		c.setKey(&k.key)
		message := []byte("test message")
		if c.xor(message); hex.EncodeToString(message) != test.message {
			t.Errorf("%v, client=%v: message is %x, want %s", test.bits, test.client, message, test.message)
		}
	}
}

// RFC 3079 section 2.5, the byte that section 2.5.3 prints wrong put right.
func TestKeysFromMSCHAPGiveTheSamplesOfRFC3079(t *testing.T) {
	keys := KeysFromMSCHAP([8]byte(unhex(t, "76a152936096d783")), [16]byte(unhex(t, "a8947850cfc0acc1d1789fb62ddcddb0")))
	if keys.Send != keys.Receive {
		t.Error("the two directions have different keys")
	}
	checkSessionKey(t, keys.Send, Key40, "76a152936096d783", "d1269e538cec4a08")
	checkSessionKey(t, keys.Send, Key56, "76a152936096d783", "d10801538cec4a08")
	checkSessionKey(t, keys.Send, Key128, "a8947850cfc0acc1d1789fb62ddcddb0", "59d159bc09f76f1da2a86a28ffec0b1e")
}

func checkSessionKey(t *testing.T, start StartKey, bits Bits, wantStart, wantSession string) {
	t.Helper()
	k := newSessionKey(start, bits)
	if got := hex.EncodeToString(k.start[:k.size]); got != wantStart {
		t.Errorf("%v: start key %s, want %s", bits, got, wantStart)
	}
	if got := hex.EncodeToString(k.key[:k.size]); got != wantSession {
		t.Errorf("%v: session key %s, want %s", bits, got, wantSession)
	}
}

// RFC 3078 section 7.3, against the standard library's cipher over a long walk.
func TestRekeyEncryptsTheKeyWithItself(t *testing.T) {
	for _, bits := range []Bits{Key40, Key56, Key128} {
		k := newSessionKey(sampleKeys(t, true).Send, bits)
		for i := range 300 {
			interim := k.next()
			want := make([]byte, k.size)
			std, err := stdrc4.NewCipher(interim[:k.size])
			if err != nil {
				t.Fatal(err)
			}
			std.XORKeyStream(want, interim[:k.size])
			copy(want[:k.salt], knownBytes[:])
			var c rc4
			if k.rekey(&c); string(k.key[:k.size]) != string(want) {
				t.Fatalf("%v: key %d is %x, want %x", bits, i+1, k.key[:k.size], want)
			}
		}
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	keys := sampleKeys(t, true)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{keys, &keys, keys.Send, &keys.Send} {
			text := strings.ToLower(fmt.Sprintf(format, v))
			if strings.Contains(text, "213") || strings.Contains(text, "d5") || !strings.Contains(text, "redacted") {
				t.Errorf("%s of %T gives %s", format, v, text)
			}
		}
	}
	if keys.Wipe(); keys != (Keys{}) {
		t.Error("wiped keys are still there")
	}
}
