package farend

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open starts a connection in a role.
func open(t *testing.T, line string) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Handle(server)
	}()
	t.Cleanup(func() {
		client.Close()
		<-ended
	})
	if _, err := io.WriteString(client, line); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestDownloadHasTheLengthThatWasAskedFor(t *testing.T) {
	for _, test := range []struct {
		line string
		want int64
	}{{"D 0000001\n", 1}, {"D 65537\n", 65537}, {"D 3000000\n", 3000000}, {"D 20000 100000000000\n", 20000}} {
		if n, err := io.Copy(io.Discard, open(t, test.line)); err != nil || n != test.want {
			t.Errorf("%q: %d bytes, %v", test.line, n, err)
		}
	}
}

func TestEndlessDownloadEndsWithTheClient(t *testing.T) {
	if _, err := io.CopyN(io.Discard, open(t, "D 0\n"), 5<<20); err != nil {
		t.Error(err)
	}
}

func TestDownloadOfTextRepeatsItself(t *testing.T) {
	client, server := net.Pipe()
	go Server{Text: true}.Handle(server)
	defer client.Close()
	if _, err := io.WriteString(client, "D 200\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(client)
	if err != nil || len(got) != 200 || bytes.Count(got, []byte("quick brown fox")) != 4 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestUploadIsAcknowledged(t *testing.T) {
	c := open(t, "U\n")
	go c.Write(make([]byte, 2*AckEvery))
	var total [8]byte
	for last := uint64(0); last < 2*AckEvery; last = binary.BigEndian.Uint64(total[:]) {
		if _, err := io.ReadFull(c, total[:]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEchoComesBackByteForByte(t *testing.T) {
	c := open(t, "E\n")
	for _, want := range []string{"a", "bc", "a line\n"} {
		if _, err := io.WriteString(c, want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestUnknownRolesEndTheConnection(t *testing.T) {
	for _, line := range []string{"\n", "X\n", string(bytes.Repeat([]byte("D"), 2*maxLine))} {
		client, server := net.Pipe()
		go func() {
			io.WriteString(client, line)
			io.Copy(io.Discard, client)
		}()
		Handle(server) // it returns
		client.Close()
	}
}

func TestDatagramsComeBack(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ServeUDP(server)
	}()
	client, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	client.Write([]byte("hello"))
	buf := make([]byte, 100)
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	client.Close()
	server.Close()
	<-ended
}

// A client cannot pin a connection with a rate of next to nothing.
func TestDownloadAtNoRateEnds(t *testing.T) {
	for _, rate := range []string{"1", "1e-300"} {
		n, _ := io.Copy(io.Discard, open(t, "D 1000000 "+rate+"\n"))
		if n > 2*pacedStep {
			t.Errorf("rate %s: %d bytes", rate, n)
		}
	}
}
