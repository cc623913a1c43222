package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A measured is one line of benchpeers -json, as far as it is drawn.
type measured struct {
	Carrier string  `json:"carrier"`
	Side    string  `json:"side"`
	What    string  `json:"what"` // how the far end sends, and the case: "gso down:8"
	Gbit    float64 `json:"gbit_s"`
	CPU     float64 `json:"cpu_s_per_gb"`
}

// A runs is what is drawn: transfers at full speed with a far end that sends batches.
type runs []measured

// readRuns leaves out what is not drawn.
func readRuns(r io.Reader) (all runs, err error) {
	for decoder := json.NewDecoder(r); ; {
		var m measured
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		if _, _, ok := m.transfer(); ok {
			all = append(all, m)
		}
	}
}

// transfer takes the case apart.
func (m measured) transfer() (direction string, streams int, ok bool) {
	what, ok := strings.CutPrefix(m.What, "gso ")
	if !ok {
		return "", 0, false
	}
	direction, count, _ := strings.Cut(what, ":")
	streams, err := strconv.Atoi(count)
	return direction, streams, err == nil && (direction == "down" || direction == "up")
}

// A curve is one line of the drawing: a side over a carrier. The peer has none
// of ours: its runs beside all of them are one curve.
type curve struct{ side, carrier string }

func (m measured) curve() curve {
	if m.Side != "gateway" {
		return curve{side: m.Side}
	}
	return curve{m.Side, m.Carrier}
}

func (c curve) String() string {
	if c.carrier == "" {
		return c.side
	}
	return c.carrier
}

// curves are those that there are, ours first, in the order in which they were measured.
func (all runs) curves() (curves []curve) {
	for _, ours := range []bool{true, false} {
		for _, m := range all {
			if c := m.curve(); (c.carrier != "") == ours && !slices.Contains(curves, c) {
				curves = append(curves, c)
			}
		}
	}
	return curves
}

// A spread is the median, the least and the greatest of some values.
type spread struct{ median, low, high float64 }

// of collects one figure of a curve in one direction, by the number of streams.
func (all runs) of(c curve, direction string, figure func(measured) float64) map[int]spread {
	values := map[int][]float64{}
	for _, m := range all {
		if d, streams, _ := m.transfer(); m.curve() == c && d == direction {
			if v := figure(m); v > 0 {
				values[streams] = append(values[streams], v)
			}
		}
	}
	spreads := map[int]spread{}
	for streams, v := range values {
		slices.Sort(v)
		middle := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
		spreads[streams] = spread{middle, v[0], v[len(v)-1]}
	}
	return spreads
}
