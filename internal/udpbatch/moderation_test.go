package udpbatch

import (
	"testing"
	"time"
)

func TestModerationPausesOnlyForMuchTrafficInSmallPieces(t *testing.T) {
	for name, test := range map[string]struct {
		messages, bytes int           // of each receive
		every           time.Duration // between receives
		disabled        bool
		want            time.Duration
	}{
		"single datagrams, fast":     {2, 2800, 50 * time.Microsecond, false, pauseLength},        // 56 MB/s
		"just above 25 MB/s":         {1, 1300, 50 * time.Microsecond, false, pauseLength},        // 26 MB/s
		"25 MB/s":                    {1, 1250, 50 * time.Microsecond, false, 0},                  // exactly
		"100 Mbit/s":                 {1, 1250, 100 * time.Microsecond, false, 0},                 // 12.5 MB/s
		"many messages":              {32, 32 * 500, 100 * time.Microsecond, false, 0},            // 160 MB/s
		"31 messages":                {31, 31 * 500, 100 * time.Microsecond, false, pauseLength},  // 155 MB/s
		"one large message":          {1, 32 << 10, 100 * time.Microsecond, false, 0},             // 327 MB/s
		"one not quite large":        {1, 32<<10 - 1, 100 * time.Microsecond, false, pauseLength}, // 327 MB/s
		"request and answer":         {1, 64, 200 * time.Microsecond, false, 0},                   // 0.3 MB/s
		"one datagram after silence": {1, 1400, time.Second, false, 0},
		"switched off":               {2, 2800, 50 * time.Microsecond, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := moderation{disabled: test.disabled}
			now := time.Unix(1000, 0)
			var last time.Duration
			for range 200 {
				last = m.pause(now)
				m.received(test.messages, test.bytes)
				now = now.Add(test.every)
			}
			if last != test.want {
				t.Errorf("pause %v, want %v", last, test.want)
			}
		})
	}
}

func TestModerationEndsWithTheTraffic(t *testing.T) {
	m := moderation{}
	now := time.Unix(1000, 0)
	for range 100 {
		m.pause(now)
		m.received(2, 2800)
		now = now.Add(50 * time.Microsecond)
	}
	if m.pause(now) == 0 {
		t.Fatal("no pause at 56 MB/s")
	}
	now = now.Add(10 * time.Millisecond) // a lull within which nothing came
	if d := m.pause(now); d != 0 {
		t.Errorf("pause %v after a lull", d)
	}
}

func TestModerationNeverPausesBeforeItKnowsTheRate(t *testing.T) {
	m := moderation{}
	now := time.Unix(1000, 0)
	m.pause(now)
	m.received(1, 20_000)
	if d := m.pause(now.Add(pauseWindow - 1)); d != 0 {
		t.Errorf("pause %v within the first window", d)
	}
}
