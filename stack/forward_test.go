package stack

import (
	"errors"
	"io"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// forwarding is a pair whose second stack forwards what f decides.
func forwarding(t *testing.T, f func(*Forward)) (*Stack, *Stack) {
	t.Helper()
	c := dualB()
	c.Forward = f
	return pair(t, dualA(), c, nil)
}

func TestForwardedConnectionsSeemToReachTheirDestination(t *testing.T) {
	src := make(chan string, 1)
	a, b := forwarding(t, func(f *Forward) {
		src <- f.Src.Addr().String()
		c, err := f.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if c.LocalAddr().String() != f.Dst.String() || c.RemoteAddr().String() != f.Src.String() {
			t.Errorf("%v to %v, want %v to %v", c.RemoteAddr(), c.LocalAddr(), f.Src, f.Dst)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Error(err)
		}
		_, _ = c.Write(b)
	})
	for _, tt := range []struct{ network, address, src string }{
		{"tcp", "192.0.2.1:443", "10.88.0.2"}, {"udp", "192.0.2.1:53", "10.88.0.2"},
		{"tcp", "[2001:db8::1]:443", "fd88::a"}, {"udp", "[2001:db8::1]:53", "fd88::a"},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			c, err := a.DialContext(testContext(t), tt.network, tt.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			got := make([]byte, 5)
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
			if from := <-src; from != tt.src {
				t.Errorf("forward from %v, want %v", from, tt.src)
			}
		})
	}
	t.Run("our own addresses are not forwarded", func(t *testing.T) {
		_, err := a.DialContext(testContext(t), "tcp", "10.88.0.1:443")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
		c, d := connect(t, a, b, addrB)
		transfer(t, c, d, randomBytes(1000))
	})
}

func TestRejectedForwardsAreRefused(t *testing.T) {
	rejected := make(chan string, 2)
	a, b := forwarding(t, func(f *Forward) { f.Reject(); rejected <- f.Network })
	_, err := a.DialContext(testContext(t), "tcp", "192.0.2.1:443")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	c, err := a.DialContext(testContext(t), "udp", "192.0.2.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-rejected
	<-rejected
	if n := b.Stats().Forwards; n != 0 {
		t.Errorf("%d forwards left", n)
	}
}

func TestForwardsDieWithTheStack(t *testing.T) {
	cause := errors.New("the session died")
	accepted, failed := make(chan bool), make(chan error)
	a, b := forwarding(t, func(f *Forward) {
		c, err := f.Accept()
		accepted <- true
		if err != nil {
			failed <- err
			return
		}
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
		failed <- err
	})
	c, err := a.DialContext(testContext(t), "tcp", "192.0.2.1:443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-accepted
	go b.Close(cause)
	if err := <-failed; !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestPingsOfForeignAddressesAreNotAnswered(t *testing.T) {
	out := make(chan []byte, 10)
	c := dualB()
	c.Forward = func(f *Forward) { f.Reject() }
	b := lone(t, c, out)
	b.HandlePackets([][]byte{icmpEcho(addrA, netip.MustParseAddr("192.0.2.1")), icmpEcho(globalA, netip.MustParseAddr("2001:db8::1"))})
	if len(out) != 0 {
		t.Errorf("answered %x", <-out)
	}
	b.HandlePackets([][]byte{icmpEcho(addrA, addrB), icmpEcho(globalA, globalB)})
	if len(out) != 2 {
		t.Errorf("%d answers of our own addresses, want 2", len(out))
	}
}
