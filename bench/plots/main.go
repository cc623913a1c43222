// Command plots draws the figures that benchpeers has kept (-json) as SVG files:
//
//	throughput.svg  Gbit/s over the number of streams, down and up
//	cpu.svg         CPU seconds per GB of one stream, down and up
//
// Each point is the median of the runs, each bar reaches from the least to the
// greatest. It is a module of its own, so that nothing of it is in the program's.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	figures := flag.String("json", "", "file that benchpeers -json has written")
	dir := flag.String("out", ".", "directory for the drawings")
	flag.Parse()
	if err := run(*figures, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "plots:", err)
		os.Exit(1)
	}
}

func run(figures, dir string) error {
	f, err := os.Open(figures)
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := readRuns(f)
	if err != nil {
		return err
	}
	if err := drawThroughput(all, filepath.Join(dir, "throughput.svg")); err != nil {
		return err
	}
	return drawCPU(all, filepath.Join(dir, "cpu.svg"))
}
