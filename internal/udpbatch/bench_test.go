package udpbatch

import (
	"fmt"
	"testing"
	"time"
)

const benchSize = 1412 // an L2TP data message of a full inner packet

// BenchmarkMove sends a batch over loopback and reads it again, in one goroutine. It reports the two halves apart: ns for a datagram.
func BenchmarkMove(b *testing.B) {
	for _, v := range portableVariants() {
		for _, batch := range []int{1, 46} {
			b.Run(fmt.Sprintf("path=%s/batch=%d", v.name, batch), func(b *testing.B) {
				in, out := v.listen(b, loopback4), v.listen(b, loopback4)
				if err := in.SetReadDeadline(time.Time{}); err != nil {
					b.Fatal(err)
				}
				datagrams := sized(0, repeat(batch, benchSize)...)
				var sending, receiving time.Duration
				b.SetBytes(int64(batch * benchSize))
				b.ReportAllocs()
				for b.Loop() {
					start := time.Now()
					if err := out.WriteDatagrams(datagrams, 0, in.LocalAddr()); err != nil {
						b.Fatal(err)
					}
					sent := time.Now()
					for n := 0; n < batch; {
						messages, err := in.Read()
						if err != nil {
							b.Fatal(err)
						}
						for _, m := range messages {
							n += len(m.Datagrams)
						}
					}
					sending += sent.Sub(start)
					receiving += time.Since(sent)
				}
				n := float64(b.N * batch)
				b.ReportMetric(float64(sending)/n, "send-ns/datagram")
				b.ReportMetric(float64(receiving)/n, "receive-ns/datagram")
			})
		}
	}
}

func BenchmarkCut(b *testing.B) {
	message := make([]byte, 46*benchSize)
	datagrams := make([][]byte, 0, maxSegments)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		datagrams = cut(datagrams[:0], message, benchSize)
	}
}

func BenchmarkRun(b *testing.B) {
	datagrams := sized(0, repeat(46, benchSize)...)
	b.SetBytes(46 * benchSize)
	b.ReportAllocs()
	for b.Loop() {
		run(datagrams, 0, maxPayload)
	}
}
