package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// describeMachine says what the figures belong to.
func describeMachine(ctx context.Context, w io.Writer, p plan) {
	commit := output(ctx, "git", "rev-parse", "--short", "HEAD")
	if output(ctx, "git", "status", "--porcelain", "--untracked-files=no") != "" {
		commit += " with changes"
	}
	load, _ := os.ReadFile("/proc/loadavg")
	averages, _, _ := strings.Cut(string(load), "/")
	fmt.Fprintf(w, "%s, commit %s, %s, %s, %d CPUs (%s), load before %s; %d pairs of %v\n\n", time.Now().UTC().Format("2006-01-02 15:04Z"), commit,
		runtime.Version(), output(ctx, "uname", "-sr"), runtime.NumCPU(), cpuModel(), averages, p.pairs, p.options.Dur)
}

func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// printTable prints the goals and what was reached, as Markdown.
func printTable(w io.Writer, outcomes []outcome) {
	fmt.Fprintf(w, "| goal | target | gateway | against | ratio or figure | machine busy | |\n|---|---|---|---|---|---|---|\n")
	goals, reached := 0, 0
	for _, o := range outcomes {
		fmt.Fprintln(w, o.row())
		if !o.told() {
			goals++
			if o.pass() {
				reached++
			}
		}
	}
	fmt.Fprintf(w, "\n%d of %d goals reached.\n\n", reached, goals)
}

func (o outcome) row() string {
	against := "-"
	if o.against != "" {
		against = o.against + " " + o.other.String()
	}
	busy := "-"
	if !math.IsNaN(o.busy.Median) {
		busy = fmt.Sprintf("%.0f %%", 100*o.busy.Median)
	}
	verdict := "pass"
	switch {
	case o.told():
		verdict = ""
	case !o.pass():
		verdict = "**short**"
	}
	if o.failed > 0 {
		verdict += fmt.Sprintf(", %d runs failed", o.failed)
	}
	if o.note != "" {
		verdict += "; " + o.note
	}
	return fmt.Sprintf("| %s | %s | %v | %s | %v | %s | %s |", o.name, o.target(), o.ours, against, o.figure, busy, verdict)
}

// target is the goal in words.
func (g goal) target() string {
	var parts []string
	unit := ""
	if g.against != "" {
		unit = "x"
	}
	add := func(words string, v float64) {
		if v != 0 {
			parts = append(parts, words+strconv.FormatFloat(v, 'g', -1, 64)+unit)
		}
	}
	add(">= ", g.atLeast)
	add("<= ", g.atMost)
	add("no run < ", g.never)
	add("no run > ", g.ceiling)
	if g.even != 0 {
		parts = append(parts, fmt.Sprintf("no run < %g of the median", g.even))
	}
	return strings.Join(parts, ", ")
}
