package udpbatch

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCutGivesBackWhatWasJoined(t *testing.T) {
	for name, test := range map[string]struct {
		length, size int
		want         []int // lengths
	}{
		"not joined":        {1400, 0, []int{1400}},
		"empty datagram":    {0, 0, []int{0}},
		"size of the whole": {1400, 1400, []int{1400}},
		"size above":        {1400, 1500, []int{1400}},
		"negative size":     {1400, -1, []int{1400}},
		"even":              {4200, 1400, []int{1400, 1400, 1400}},
		"odd tail":          {2801, 1400, []int{1400, 1400, 1}},
		"bytes":             {3, 1, []int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			for _, d := range cut(nil, make([]byte, test.length), test.size) {
				got = append(got, len(d))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("lengths (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzCut(f *testing.F) {
	f.Add([]byte("aaabbbc"), 3)
	f.Add([]byte{}, 0)
	f.Add([]byte{1}, -5)
	f.Fuzz(func(t *testing.T, message []byte, size int) {
		pieces := cut(nil, message, size)
		if joined := bytes.Join(pieces, nil); !bytes.Equal(joined, message) {
			t.Fatalf("joined %x, want %x", joined, message)
		}
		if len(pieces) > max(len(message), 1) {
			t.Fatalf("%d pieces of %d bytes", len(pieces), len(message))
		}
		for i, p := range pieces {
			if cap(p) != len(p) {
				t.Fatalf("piece %d may grow into the next", i)
			}
			if last := i == len(pieces)-1; size > 0 && len(p) != size && (!last || len(p) > size) {
				t.Fatalf("piece %d of %d has %d bytes, cut at %d", i, len(pieces), len(p), size)
			}
		}
	})
}

func sized(offset int, sizes ...int) [][]byte {
	var all [][]byte
	for _, n := range sizes {
		all = append(all, make([]byte, offset+n))
	}
	return all
}

func repeat(n, size int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = size
	}
	return all
}

func TestRunHoldsWhatTheKernelCanSplitAgain(t *testing.T) {
	for name, test := range map[string]struct {
		sizes []int
		limit int
		want  int
	}{
		"one":                   {[]int{1400}, maxPayload, 1},
		"equal":                 {repeat(3, 1400), maxPayload, 3},
		"short tail goes along": {[]int{1400, 1400, 9, 1400}, maxPayload, 3},
		"longer one does not":   {[]int{1400, 1400, 1401}, maxPayload, 2},
		"empty one does not":    {[]int{1400, 0, 1400}, maxPayload, 1},
		"empty first":           {[]int{0, 0, 0}, maxPayload, 1},
		"at most 64":            {repeat(65, 100), maxPayload, 64},
		"64th may be short":     {append(repeat(63, 100), 1, 1), maxPayload, 64},
		"at most 65507 bytes":   {repeat(60, 1400), maxPayload, 46},
		"a tail that just fits": {append(repeat(46, 1400), 1107), maxPayload, 47},
		"a tail that does not":  {append(repeat(46, 1400), 1108), maxPayload, 46},
		"two halves":            {repeat(2, 32753), maxPayload, 2},
		"two too large halves":  {repeat(2, 32754), maxPayload, 1},
		"largest":               {repeat(2, 65507), maxPayload, 1},
		"too large":             {repeat(2, 65508), maxPayload, 1},
		"size at the limit":     {repeat(2, 1000), 1000, 2},
		"size above the limit":  {repeat(2, 1001), 1000, 1},
		"switched off":          {repeat(2, 1), 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			count, size := run(sized(7, test.sizes...), 7, test.limit)
			if count != test.want || size != test.sizes[0] {
				t.Errorf("%d datagrams of %d bytes, want %d of %d", count, size, test.want, test.sizes[0])
			}
		})
	}
}

// splits says, in the slowest way, whether a message of the first n datagrams comes apart as it should.
func splits(datagrams [][]byte, n, offset, limit int) bool {
	if n == 1 {
		return true
	}
	size := len(datagrams[0]) - offset
	var message []byte
	for _, d := range datagrams[:n] {
		message = append(message, d[offset:]...)
	}
	if size == 0 || size > limit || n > maxSegments || len(message) > maxPayload {
		return false
	}
	for i := range n {
		m := min(size, len(message))
		if m == 0 || m != len(datagrams[i])-offset {
			return false
		}
		message = message[m:]
	}
	return len(message) == 0
}

func FuzzRun(f *testing.F) {
	f.Add([]byte{9, 9, 9, 3, 9}, uint8(2), uint16(1000), uint16(100))
	f.Add([]byte{0, 0, 1}, uint8(0), uint16(65507), uint16(1))
	f.Add(bytes.Repeat([]byte{5}, 100), uint8(1), uint16(65507), uint16(1400))
	f.Fuzz(func(t *testing.T, lengths []byte, offset uint8, limit, scale uint16) {
		if len(lengths) == 0 || len(lengths) > 200 {
			return
		}
		var sizes []int
		for _, n := range lengths {
			sizes = append(sizes, int(n)*int(scale%1500))
		}
		datagrams := sized(int(offset), sizes...)
		l := min(int(limit), maxPayload)
		count, size := run(datagrams, int(offset), l)
		if size != sizes[0] || count < 1 || count > len(datagrams) || !splits(datagrams, count, int(offset), l) {
			t.Fatalf("%d datagrams of %d bytes out of %v", count, size, sizes)
		}
		if count < len(datagrams) && splits(datagrams, count+1, int(offset), l) {
			t.Fatalf("%d datagrams out of %v, though one more would do", count, sizes)
		}
	})
}
