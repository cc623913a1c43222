package mppc

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// testdata/freerdp.txt was recorded with testdata/freerdp_mppc.c, which says how.
func TestExpandWhatFreeRDPCompressed(t *testing.T) {
	f, err := os.Open("testdata/freerdp.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	var d Decompressor
	seen := Header(0)
	lines := bufio.NewScanner(f)
	for i := 1; lines.Scan(); i++ {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			t.Fatalf("line %d has %d fields", i, len(fields))
		}
		bits, err := strconv.ParseUint(fields[0], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		flags := Header(bits << 8)
		seen |= flags
		packet, data := unhex(t, fields[1]), unhex(t, fields[2])
		if !flags.Has(Compressed) {
			d.Note(flags)
			continue
		}
		got, err := d.Expand(nil, data, flags)
		if err != nil || !bytes.Equal(got, packet) {
			t.Fatalf("line %d: %v, got %x", i, err, got)
		}
	}
	if lines.Err() != nil || seen != Flushed|AtFront|Compressed {
		t.Errorf("the recording is not whole: flags %04x, %v", seen, lines.Err())
	}
}

// It needs a C compiler and FreeRDP's development files, and is skipped without.
func TestFreeRDPExpandsWhatWeCompressed(t *testing.T) {
	program := buildFreeRDP(t)
	var lines strings.Builder
	var want []string
	var c Compressor
	for name, data := range corpora(t) {
		for i := 0; len(data) > 0 && i < 100; i++ {
			packet := data[:min(len(data), 1+i*37%1500)]
			data = data[len(packet):]
			buf := bytes.Clone(packet)
			n, flags := c.Compress(buf)
			if !flags.Has(Compressed) {
				continue // goes on the wire as it is; RDP has rules of its own for such
			}
			fmt.Fprintf(&lines, "%02x %x\n", uint16(flags)>>8, buf[:n])
			want = append(want, fmt.Sprintf("%s packet %d: %s", name, i, hex.EncodeToString(packet)))
		}
	}
	cmd := exec.Command(program, "expand")
	cmd.Stdin = strings.NewReader(lines.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d packets sent, %d expanded", len(want), len(got))
	}
	for i, w := range want {
		if name, packet, _ := strings.Cut(w, ": "); got[i] != packet {
			t.Fatalf("%s: got %s, want %s", name, got[i], packet)
		}
	}
}

func buildFreeRDP(t *testing.T) string {
	t.Helper()
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "freerdp2", "winpr2").Output()
	if err != nil {
		t.Skip("FreeRDP's development files are not installed (freerdp2-dev)")
	}
	program := filepath.Join(t.TempDir(), "freerdp_mppc")
	args := append([]string{"-o", program, "testdata/freerdp_mppc.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Skipf("cannot build testdata/freerdp_mppc.c: %v: %s", err, out)
	}
	return program
}
