package supervisor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/vpnclient"
)

// A deadResolver knows no name and notes when it is asked.
type deadResolver struct{ asked []time.Time }

func (r *deadResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	r.asked = append(r.asked, time.Now())
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func config(r *deadResolver) Config {
	return Config{Name: "test", Initial: time.Second, Max: 8 * time.Second,
		Dial: vpnclient.Config{Server: "vpn.example", Resolver: r}}
}

func TestGivesUpAfterAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &deadResolver{}
		c := config(r)
		c.Attempts = 3
		err := New(c).Run(t.Context())
		if vpnclient.Judge(err) != vpnclient.Unreachable || len(r.asked) != 3 {
			t.Errorf("%v after %d attempts", err, len(r.asked))
		}
	})
}

// The name is resolved anew at each dial, and the pauses between them double
// up to the maximum, give or take a quarter.
func TestDialsAgainWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &deadResolver{}
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		if err := New(config(r)).Run(ctx); err != nil {
			t.Errorf("ended with %v", err)
		}
		want := []time.Duration{1, 2, 4, 8, 8, 8}
		if len(r.asked) <= len(want) {
			t.Fatalf("%d attempts in 45 s", len(r.asked))
		}
		for i, seconds := range want {
			pause, middle := r.asked[i+1].Sub(r.asked[i]), seconds*time.Second
			if pause < middle*3/4 || pause > middle*5/4 {
				t.Errorf("pause %d is %v, want about %v", i, pause, middle)
			}
		}
	})
}

func TestConnectionsWaitForTheTunnelAndThenFail(t *testing.T) {
	for _, test := range []struct{ wait, want time.Duration }{{0, 15 * time.Second}, {time.Second, time.Second}, {-1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			c := config(&deadResolver{})
			c.Wait = test.wait
			tunnel := New(c)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- tunnel.Run(ctx) }()
			synctest.Wait()

			start := time.Now()
			_, err := tunnel.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			var down *DownError
			if !errors.As(err, &down) || !down.TunnelDown() || down.RetryAfter() <= 0 {
				t.Errorf("got %v", err)
			}
			if waited := time.Since(start); waited != test.want {
				t.Errorf("waited %v, want %v", waited, test.want)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := New(config(&deadResolver{})).LookupNetIP(ctx, "ip", "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTunnelThatHasGivenUpFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(&deadResolver{})
		c.Attempts = 1
		tunnel := New(c)
		tunnel.Run(t.Context())
		start := time.Now()
		_, err := tunnel.ListenPacket(t.Context(), "udp", "")
		var down *DownError
		if !errors.As(err, &down) || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
