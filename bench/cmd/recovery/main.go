// Command recovery measures uploads of the inner TCP over links that lose, reorder and delay, for each way to recover and to control
// congestion: two stacks of ours in one process, and a link of this program's making between them. Real time, and rates so low that
// the machine does not matter; many links run at once.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"gateway/stack"
)

var (
	near = netip.MustParseAddr("10.0.0.1")
	far  = netip.MustParseAddr("10.0.0.2")
)

// A way is how the sender behaves.
type way struct {
	rack, gso  bool
	congestion string
}

func (w way) String() string {
	s := w.congestion
	if w.rack {
		s += " rack"
	}
	if w.gso {
		s += " gso"
	}
	return s
}

func main() {
	seconds := flag.Float64("seconds", 10, "length of each upload")
	runs := flag.Int("runs", 3, "uploads of each kind; the median counts")
	parallel := flag.Int("parallel", 16, "uploads at a time")
	rate := flag.Float64("rate", 50, "the link's Mbit/s")
	streams := flag.Int("streams", 1, "connections that share a link")
	flag.Parse()
	if err := measure(*seconds, *runs, *parallel, *rate, *streams); err != nil {
		fmt.Fprintln(os.Stderr, "recovery:", err)
		os.Exit(1)
	}
}

func measure(seconds float64, runs, parallel int, rate float64, streams int) error {
	var ways []way
	for _, congestion := range []string{"reno", "cubic"} {
		for _, rack := range []bool{true, false} {
			for _, gso := range []bool{true, false} {
				ways = append(ways, way{rack, gso, congestion})
			}
		}
	}
	var paths []path
	for _, rtt := range []time.Duration{20, 80, 180} {
		for _, kind := range []path{{}, {loss: .01}, {loss: .05}, {reorder: .1}, {loss: .01, reorder: .1}} {
			kind.delay, kind.rate = rtt*time.Millisecond/2, rate*1e6/8
			paths = append(paths, kind)
		}
	}
	speeds := make(map[path]map[way][]float64)
	var (
		mu    sync.Mutex
		group sync.WaitGroup
		fails error
	)
	slots := make(chan struct{}, parallel)
	for range runs {
		for _, p := range paths {
			for _, w := range ways {
				slots <- struct{}{}
				group.Go(func() {
					defer func() { <-slots }()
					speed, err := upload(p, w, streams, time.Duration(seconds*float64(time.Second)))
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						fails = fmt.Errorf("%v, %v: %w", p, w, err)
					}
					if speeds[p] == nil {
						speeds[p] = make(map[way][]float64)
					}
					speeds[p][w] = append(speeds[p][w], speed)
				})
			}
		}
	}
	group.Wait()
	print(ways, paths, speeds)
	return fails
}

// print writes a table in Markdown, Mbit/s: median [least..most].
func print(ways []way, paths []path, speeds map[path]map[way][]float64) {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 0, ' ', 0)
	head, line := "| path\t", "| ---\t"
	for _, w := range ways {
		head += "| " + w.String() + "\t"
		line += "| ---\t"
	}
	fmt.Fprintf(out, "%s|\n%s|\n", head, line)
	for _, p := range paths {
		fmt.Fprintf(out, "| %v\t", p)
		for _, w := range ways {
			v := speeds[p][w]
			slices.Sort(v)
			fmt.Fprintf(out, "| %.2f [%.2f..%.2f]\t", v[len(v)/2], v[0], v[len(v)-1])
		}
		fmt.Fprintln(out, "|")
	}
	out.Flush()
}

// upload sends as much as it can and returns what arrived, in Mbit/s.
func upload(p path, w way, streams int, length time.Duration) (float64, error) {
	there, back := newLink(p), newLink(p)
	defer there.close()
	defer back.close()
	c := stack.Config{IPv4: near, RACK: w.rack, DisableGSO: !w.gso, Congestion: w.congestion}
	a, err := stack.New(c, there)
	if err != nil {
		return 0, err
	}
	defer a.Close(nil)
	b, err := stack.New(stack.Config{IPv4: far}, back)
	if err != nil {
		return 0, err
	}
	defer b.Close(nil)
	go there.run(b.HandlePackets)
	go back.run(a.HandlePackets)

	l, err := b.ListenTCP(netip.AddrPortFrom(far, 9))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var (
		total int64
		mu    sync.Mutex
		group sync.WaitGroup
	)
	for range streams {
		out, err := a.DialContext(ctx, "tcp", netip.AddrPortFrom(far, 9).String())
		if err != nil {
			return 0, err
		}
		defer out.Close()
		in, err := l.Accept()
		if err != nil {
			return 0, err
		}
		defer in.Close()
		end := time.Now().Add(length)
		in.SetReadDeadline(end)
		out.SetWriteDeadline(end)
		go io.Copy(out, endless{})
		group.Go(func() {
			n, _ := io.Copy(io.Discard, in)
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	group.Wait()
	return float64(total) * 8 / 1e6 / length.Seconds(), nil
}

// endless is a reader of zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// A path is what a link does to packets, each way.
type path struct {
	rate    float64       // bytes a second
	delay   time.Duration // one way
	loss    float64       // share of packets
	reorder float64       // share of packets that come half a delay early
}

func (p path) String() string {
	s := []string{fmt.Sprint(2*p.delay, " ")}
	if p.loss > 0 {
		s = append(s, fmt.Sprintf("loss %v %%", 100*p.loss))
	}
	if p.reorder > 0 {
		s = append(s, "reordering")
	}
	return strings.Join(s, " ")
}

const (
	queueLength = 50 * time.Millisecond // what the link's bottleneck holds; the rest is lost
	headroom    = 8
)

// A link is one direction of a path.
type link struct {
	path
	mu     sync.Mutex
	random *rand.Rand
	free   time.Time // when the bottleneck has sent what it holds
	queue  []flight  // by time of arrival
	wake   chan struct{}
	closed chan struct{}
}

type flight struct {
	at     time.Time
	packet []byte
}

func newLink(p path) *link {
	return &link{path: p, random: rand.New(rand.NewPCG(rand.Uint64(), 0)), wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (l *link) Headroom() int { return headroom }
func (l *link) Tailroom() int { return 0 }
func (l *link) close()        { close(l.closed) }

func (l *link) WritePackets(packets [][]byte, offset int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, p := range packets {
		if l.free.Before(now) {
			l.free = now
		}
		if l.free.Sub(now) > queueLength || l.random.Float64() < l.loss {
			continue
		}
		l.free = l.free.Add(time.Duration(float64(len(p)-offset) / l.rate * float64(time.Second)))
		at := l.free.Add(l.delay)
		if l.random.Float64() < l.reorder {
			at = at.Add(-l.delay / 2)
		}
		i, _ := slices.BinarySearchFunc(l.queue, at, func(f flight, t time.Time) int {
			if f.at.After(t) {
				return 1
			}
			return -1
		})
		l.queue = slices.Insert(l.queue, i, flight{at, slices.Clone(p[offset:])})
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// run delivers what has arrived until the link is closed.
func (l *link) run(deliver func([][]byte)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-l.wake:
		case <-timer.C:
		}
		packets, next := l.arrived(time.Now())
		if len(packets) > 0 {
			deliver(packets)
		}
		timer.Reset(next)
	}
}

// arrived takes what has arrived, and tells how long the rest needs.
func (l *link) arrived(now time.Time) (packets [][]byte, next time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.queue) && !l.queue[n].at.After(now) {
		packets = append(packets, l.queue[n].packet)
		n++
	}
	l.queue = slices.Delete(l.queue, 0, n)
	if len(l.queue) == 0 {
		return packets, time.Hour
	}
	return packets, l.queue[0].at.Sub(now)
}
