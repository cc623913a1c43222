package ipsec

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what we seal to testdata/linux-xfrm.json; testdata/linux-xfrm.py has to check it then")

const linuxVectors = "testdata/linux-xfrm.json"

// A linuxVector is what the Linux kernel sent and accepted on one pair of SAs, from and to UDP port 1701; see testdata/linux-xfrm.py.
type linuxVector struct {
	Transform string   `json:"transform"`
	SPIIn     uint32   `json:"spi_in"`
	KeyIn     string   `json:"key_in"`
	AuthIn    string   `json:"auth_in"`
	SPIOut    uint32   `json:"spi_out"`
	KeyOut    string   `json:"key_out"`
	AuthOut   string   `json:"auth_out"`
	Sent      []string `json:"sent"`
	Sealed    []string `json:"sealed"`
	Accepted  int      `json:"accepted"`
}

func (v *linuxVector) pair(t *testing.T) Pair {
	transform, err := ParseTransform(v.Transform)
	if err != nil {
		t.Fatal(err)
	}
	return Pair{
		Peer: server, Transform: transform, SPIIn: v.SPIIn, SPIOut: v.SPIOut,
		KeyIn: unhex(v.KeyIn), AuthIn: unhex(v.AuthIn), KeyOut: unhex(v.KeyOut), AuthOut: unhex(v.AuthOut),
	}
}

func readLinuxVectors(t *testing.T) (vectors []*linuxVector) {
	b, err := os.ReadFile(linuxVectors)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// linuxTexts are the datagrams of a linuxVector.
func linuxTexts() []string {
	return []string{string(octets(1, 1)), string(octets(40, 40)), string(octets(200, 200))}
}

// The kernel and we must be able to talk with every transform: this opens what it sent, and makes again what it accepted.
func TestLinuxKernelIsUnderstoodAndUnderstands(t *testing.T) {
	vectors := readLinuxVectors(t)
	done := make(map[string]bool)
	for _, v := range vectors {
		done[v.Transform] = true
		t.Run("transform="+v.Transform, func(t *testing.T) {
			s := newSide(Config{AllowNull: true})
			s.install(t, epoch, v.pair(t))
			for _, esp := range v.Sent {
				s.receive(epoch, server, unhex(esp))
			}
			if diff := cmp.Diff(linuxTexts(), s.upper.takeTexts()); diff != "" {
				t.Error("opened:", diff, s.Stats())
			}
			var sealed []string
			for _, esp := range s.seal(t, server, linuxTexts()...) {
				sealed = append(sealed, hex.EncodeToString(esp))
			}
			if *update {
				v.Sealed, v.Accepted = sealed, 0
			} else if diff := cmp.Diff(v.Sealed, sealed); diff != "" {
				t.Error("sealed:", diff)
			} else if v.Accepted != len(sealed) {
				t.Error("the kernel accepted", v.Accepted, "of", len(sealed))
			}
		})
	}
	for _, name := range []string{"aes256-sha256", "aes128-sha1", "3des-sha1", "3des-md5", "aes256-sha256_96", "aes256gcm8", "null-sha256"} {
		if !done[name] {
			t.Error("no vector for", name)
		}
	}
	if *update {
		b, err := json.MarshalIndent(vectors, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(linuxVectors, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
