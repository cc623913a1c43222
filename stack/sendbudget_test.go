package stack

import (
	"slices"
	"testing"
	"time"
)

// TestSendShare lets writers come and go: the limit must keep to the budget at once, must not follow each of them, and must be whole
// again when few have waited for a while.
func TestSendShare(t *testing.T) {
	const most, least = 8 << 20, 256 << 10
	applied := []int{most}
	share := newSendShare(most, least, func(size int) { applied = append(applied, size) })
	now := time.Unix(1000, 0)
	for writers := 1; writers <= 1000; writers++ {
		share.begin(now)
		if size := applied[len(applied)-1]; size > least && writers*size > sendBudget {
			t.Fatalf("%d writers may buffer %d bytes each", writers, size)
		}
	}
	want := []int{8 << 20, 4 << 20, 2 << 20, 1 << 20, 512 << 10, 256 << 10}
	if !slices.Equal(applied, want) {
		t.Fatalf("1000 writers came: limits %v, want %v", applied, want)
	}
	for range 990 {
		share.end()
	}
	// Ten of them go on. What was counts for the rest of this window and for the next.
	for _, step := range []struct {
		after time.Duration
		size  int
	}{
		{sendWindow / 2, least},
		{sendWindow / 2, least},
		{sendWindow - 1, least},
		{1, 1 << 20},
		{sendWindow, 1 << 20},
	} {
		now = now.Add(step.after)
		share.end()
		share.begin(now)
		if size := applied[len(applied)-1]; size != step.size {
			t.Fatalf("%v later: limit %d, want %d", step.after, size, step.size)
		}
	}
	for range 10 {
		share.end()
	}
	share.begin(now.Add(time.Hour))
	if size := applied[len(applied)-1]; size != most {
		t.Errorf("one writer after an hour: limit %d, want %d", size, most)
	}
}

// TestSendShareOfOneSize must do nothing when buffers may not grow.
func TestSendShareOfOneSize(t *testing.T) {
	share := newSendShare(8<<20, 8<<20, func(size int) { t.Errorf("limit changed to %d", size) })
	for range 100 {
		share.begin(time.Unix(1000, 0))
	}
}
