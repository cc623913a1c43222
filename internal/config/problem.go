package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong with one key. It never holds the value of a secret.
type Problem struct {
	// Where it was set: File with Line and Column (1-based; 0 when unknown), or Setting, the name of an environment
	// variable or of an overridden key. All empty: it was not set anywhere.
	File         string
	Line, Column int
	Setting      string

	Key     string // such as "tunnel.l2tp.secret"; the second tunnel is "tunnel.1"; "" when no key is concerned
	Message string // what is wrong and what is allowed
	Hint    string // what was probably meant; may be empty
}

// Error gives "config.toml:12:1: tunnel.protocol: what is wrong (hint)".
func (p *Problem) Error() string {
	var b strings.Builder
	switch {
	case p.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	case p.File != "":
		fmt.Fprintf(&b, "%s: ", p.File)
	case p.Setting != "":
		fmt.Fprintf(&b, "%s: ", p.Setting)
	}
	if p.Key != "" && p.Key != p.Setting {
		fmt.Fprintf(&b, "%s: ", p.Key)
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		fmt.Fprintf(&b, " (%s)", p.Hint)
	}
	return b.String()
}

// Problems returns every Problem joined in an error of [Load] or [Config.Validate], in the order of the file.
func Problems(err error) []*Problem {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	var p *Problem
	if errors.As(err, &p) {
		return []*Problem{p}
	}
	return nil
}

// join makes one error of problems, nil of none.
func join(problems []*Problem) error {
	slices.SortStableFunc(problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(b.File, a.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Setting, b.Setting), cmp.Compare(a.Key, b.Key))
	})
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// didYouMean returns a hint when one of names is near to name, else "".
func didYouMean(name string, names []string) string {
	best, nearest := "", max(1, min(3, len(name)/3))+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < nearest {
			best, nearest = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is the number of single-character edits between a and b, a swap of neighbours counting as one
// (optimal string alignment). Names longer than any key are far from everything.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return 100
	}
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range current {
		current[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, previous, current = previous, current, before
		current[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
	}
	return current[len(b)]
}
