package config

import (
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// place is where a key stands in a file, 1-based, columns in characters.
type place struct{ line, column int }

// locate returns the place of every key of a TOML document, by path: "tunnel.1.l2tp.port" is the port of the second
// [[tunnel]]. The TOML library gives no places of good keys, so this walks the text once more. The document has been parsed
// before, hence nothing is checked here; of a document that is not TOML some places come out wrong or missing.
func locate(doc string) map[string]place {
	l := &locator{doc: doc, places: map[string]place{}, last: map[string]int{}}
	for i, c := range []byte(doc) {
		if c == '\n' {
			l.lines = append(l.lines, i+1)
		}
	}
	l.document()
	return l.places
}

type locator struct {
	doc    string
	pos    int
	depth  int
	lines  []int // offsets of the second and later lines
	places map[string]place
	last   map[string]int // index of the newest element of each array of tables
}

// maxDepth bounds recursion into arrays and inline tables; no key of ours lies so deep.
const maxDepth = 32

func (l *locator) document() {
	l.take("\ufeff")
	table := ""
	for l.blank(); l.pos < len(l.doc); l.blank() {
		start := l.pos
		if l.take("[") {
			array := l.take("[")
			table = l.open(l.key(), array, start)
			l.take("]")
			l.take("]")
		} else {
			l.assignment(table)
		}
		if l.pos == start {
			l.pos++ // not TOML
		}
	}
}

// open enters the table of a header and returns its path.
func (l *locator) open(keys []string, array bool, at int) string {
	path := ""
	for i, k := range keys {
		path = below(path, k)
		if array && i == len(keys)-1 {
			if n, ok := l.last[path]; ok {
				l.last[path] = n + 1
			} else {
				l.last[path] = 0
			}
			l.note(path, at)
		}
		if n, ok := l.last[path]; ok {
			path = below(path, strconv.Itoa(n))
		}
		l.note(path, at)
	}
	return path
}

// assignment walks `key = value` in table.
func (l *locator) assignment(table string) {
	at, path := l.pos, table
	for _, k := range l.key() {
		path = below(path, k)
		l.note(path, at)
	}
	l.space()
	if l.take("=") {
		l.space()
		l.value(path)
	}
}

func (l *locator) value(path string) {
	if l.depth++; l.depth > maxDepth {
		l.pos = len(l.doc)
	}
	defer func() { l.depth-- }()
	switch {
	case l.take(`"""`):
		l.until(`"""`, true)
		for l.take(`"`) { // up to two quotes may stand before the closing three
		}
	case l.take(`'''`):
		l.until(`'''`, false)
		for l.take(`'`) {
		}
	case l.take(`"`):
		l.until(`"`, true)
	case l.take(`'`):
		l.until(`'`, false)
	case l.take("["):
		l.elements("]", func(i int) {
			element := below(path, strconv.Itoa(i))
			l.note(element, l.pos)
			l.value(element)
		})
	case l.take("{"):
		l.elements("}", func(int) { l.assignment(path) })
	default:
		for l.pos < len(l.doc) && !strings.ContainsRune(",]}#\r\n", rune(l.doc[l.pos])) {
			l.pos++
		}
	}
}

// elements walks what stands between commas up to end.
func (l *locator) elements(end string, element func(i int)) {
	for i := 0; ; {
		l.blank()
		start := l.pos
		if l.pos >= len(l.doc) || l.take(end) {
			return
		}
		if l.take(",") {
			continue
		}
		element(i)
		i++
		if l.pos == start {
			l.pos++ // not TOML
		}
	}
}

// key reads a dotted key.
func (l *locator) key() (keys []string) {
	for {
		l.space()
		start := l.pos
		switch {
		case l.take(`"`):
			l.until(`"`, true)
			k, err := strconv.Unquote(l.doc[start:l.pos])
			if err != nil {
				k = l.doc[start:l.pos]
			}
			keys = append(keys, k)
		case l.take(`'`):
			l.until(`'`, false)
			keys = append(keys, strings.Trim(l.doc[start:l.pos], `'`))
		default:
			for l.pos < len(l.doc) && !strings.ContainsRune(".=]}, \t#\r\n", rune(l.doc[l.pos])) {
				l.pos++
			}
			keys = append(keys, l.doc[start:l.pos])
		}
		l.space()
		if !l.take(".") {
			return keys
		}
	}
}

// until moves behind the next end that no backslash escapes.
func (l *locator) until(end string, escapes bool) {
	for l.pos < len(l.doc) {
		if escapes && l.doc[l.pos] == '\\' {
			l.pos = min(l.pos+2, len(l.doc))
			continue
		}
		if l.take(end) {
			return
		}
		l.pos++
	}
}

func (l *locator) space() {
	for l.take(" ") || l.take("\t") {
	}
}

// blank moves over white space, newlines and comments.
func (l *locator) blank() {
	for l.pos < len(l.doc) {
		switch l.doc[l.pos] {
		case ' ', '\t', '\r', '\n':
			l.pos++
		case '#':
			for l.pos < len(l.doc) && l.doc[l.pos] != '\n' {
				l.pos++
			}
		default:
			return
		}
	}
}

func (l *locator) take(s string) bool {
	if !strings.HasPrefix(l.doc[l.pos:], s) {
		return false
	}
	l.pos += len(s)
	return true
}

// note records the first place of path.
func (l *locator) note(path string, offset int) {
	if _, ok := l.places[path]; ok {
		return
	}
	n := sort.SearchInts(l.lines, offset+1) // line starts at or before offset, but for the first
	start := 0
	if n > 0 {
		start = l.lines[n-1]
	}
	l.places[path] = place{line: n + 1, column: utf8.RuneCountInString(l.doc[start:offset]) + 1}
}

// below is the path of key in the table or array at path.
func below(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
