package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const figures = `{"carrier":"l2tp","side":"gateway","what":"gso down:1","gbit_s":6,"cpu_s_per_gb":1}
{"carrier":"l2tp","side":"gateway","what":"gso down:1","gbit_s":8,"cpu_s_per_gb":2}
{"carrier":"l2tp","side":"gateway","what":"gso down:1","gbit_s":7,"cpu_s_per_gb":3}
{"carrier":"l2tp","side":"gateway","what":"gso down:8","gbit_s":5,"cpu_s_per_gb":1}
{"carrier":"l2tp","side":"gateway","what":"gso up:1","gbit_s":5,"cpu_s_per_gb":1}
{"carrier":"l2tp","side":"peer","what":"gso down:1","gbit_s":1,"cpu_s_per_gb":6}
{"carrier":"pptp","side":"peer","what":"gso down:1","gbit_s":2,"cpu_s_per_gb":6}
{"carrier":"l2tp","side":"peer","what":"gso up:1","gbit_s":1,"cpu_s_per_gb":6}
{"carrier":"l2tp","side":"gateway","what":"gso up:1@100","gbit_s":0.1,"cpu_s_per_gb":9}
{"carrier":"l2tp","side":"gateway","what":"mmsg down:1","gbit_s":9,"cpu_s_per_gb":9}
{"carrier":"l2tp","side":"gateway","what":"gso rtt:1","p50_ms":1}
{"carrier":"l2tp","side":"gateway","what":"memory down:64","gbit_s":1}
`

func TestMediansOfEachCurve(t *testing.T) {
	all, err := readRuns(strings.NewReader(figures))
	if err != nil {
		t.Fatal(err)
	}
	if got := all.curves(); len(got) != 2 || got[0].String() != "l2tp" || got[1].String() != "peer" {
		t.Fatalf("curves %v", got)
	}
	gbit := func(m measured) float64 { return m.Gbit }
	ours := all.of(all.curves()[0], "down", gbit)
	if len(ours) != 2 || ours[1] != (spread{7, 6, 8}) || ours[8] != (spread{5, 5, 5}) {
		t.Errorf("ours %v", ours)
	}
	if peers := all.of(all.curves()[1], "down", gbit); peers[1] != (spread{1.5, 1, 2}) {
		t.Errorf("the peer's, of all carriers: %v", peers)
	}
}

func TestDrawingsHaveEachCurve(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "figures.json")
	if err := os.WriteFile(file, []byte(figures), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(file, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"throughput.svg", "cpu.svg"} {
		drawing, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"<svg", "l2tp", "peer", "download", "upload", "</svg>"} {
			if !strings.Contains(string(drawing), text) {
				t.Errorf("%s lacks %q", name, text)
			}
		}
	}
}

func TestFiguresThatAreNone(t *testing.T) {
	for name, text := range map[string]string{"nothing": "", "no JSON": "hello", "no transfer": `{"what":"gso rtt:1"}`} {
		file := filepath.Join(t.TempDir(), "figures.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(file, t.TempDir()); err == nil {
			t.Errorf("%s: drawn", name)
		}
	}
}
