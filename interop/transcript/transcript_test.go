package transcript

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var server = netip.MustParseAddrPort("192.0.2.1:1701")

// Every conversation with the lab's real servers, replayed: the engines say
// what they said then, byte for byte.
func TestReplayOfRealServers(t *testing.T) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			recorded, err := os.ReadFile(filepath.Join("testdata", c.Name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			replayed, err := Replay(c, server, recorded)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(recorded), "\n"), strings.Split(string(replayed), "\n")); diff != "" {
				t.Errorf("the conversation differs from the recording (-recorded +replayed):\n%s", diff)
			}
			// A recording in which nothing is reached would prove nothing.
			outcome := "\nup "
			if strings.Contains(c.Name, "wrong") || strings.Contains(c.Name, "not-allowed") {
				outcome = "\ndown "
			}
			if !strings.Contains(string(recorded), outcome) {
				t.Errorf("the recording has no %q", strings.TrimSpace(outcome))
			}
		})
	}
}
