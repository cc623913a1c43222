package mppe

import (
	"bytes"
	stdrc4 "crypto/rc4"
	"testing"
)

// doubled is how an 8-byte key is handed to setKey.
func doubled(key [8]byte) (k [16]byte) {
	copy(k[:8], key[:])
	copy(k[8:], key[:])
	return k
}

func FuzzRC4EqualsStandardLibrary(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("test message"), 5)
	f.Add(make([]byte, 16), make([]byte, 300), 8)
	f.Fuzz(func(t *testing.T, key, text []byte, cut int) {
		if len(key) < 16 {
			return
		}
		for _, size := range []int{8, 16} {
			want := bytes.Clone(text)
			std, err := stdrc4.NewCipher(key[:size])
			if err != nil {
				t.Fatal(err)
			}
			std.XORKeyStream(want, want)

			long := [16]byte(key[:16])
			if size == 8 {
				long = doubled([8]byte(key[:8]))
			}
			var ours rc4
			ours.xor([]byte("a used state"))
			ours.setKey(&long)
			got := bytes.Clone(text)
			at := 0
			if len(text) > 0 {
				at = int(uint(cut) % uint(len(text)))
			}
			ours.xor(got[:at]) // the keystream goes on over calls of any length
			ours.xor(got[at:])
			if !bytes.Equal(got, want) {
				t.Fatalf("key of %d bytes: got %x, want %x", size, got, want)
			}
		}
	})
}

func BenchmarkRC4(b *testing.B) {
	var c rc4
	key := [16]byte{1, 2, 3}
	b.Run("KeySchedule", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.setKey(&key)
		}
	})
	b.Run("1400", func(b *testing.B) {
		packet := make([]byte, 1400)
		b.SetBytes(int64(len(packet)))
		b.ReportAllocs()
		for b.Loop() {
			c.xor(packet)
		}
	})
}
