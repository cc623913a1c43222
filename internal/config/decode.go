package config

import (
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A decoder fills the structs from the tree and collects what is wrong.
type decoder struct {
	problems []*Problem
	warnings []*Problem
	at       map[string]origin // of every key that is set, and of every table
	failed   map[string]bool   // keys with a problem: later rules keep quiet about them
}

func (d *decoder) fail(path string, from origin, message, hint string) {
	d.failed[path] = true
	d.problems = append(d.problems, from.problem(path, message, hint))
}

func (o origin) problem(path, message, hint string) *Problem {
	return &Problem{File: o.file, Line: o.place.line, Column: o.place.column, Setting: o.setting, Key: path, Message: message, Hint: hint}
}

func (d *decoder) decode(root *node, c *Config) { d.table("", root, reflect.ValueOf(c).Elem()) }

// table fills the struct v from n, or with defaults where n is nil or lacks a key.
func (d *decoder) table(path string, n *node, v reflect.Value) {
	var entries map[string]*node
	if n != nil {
		d.at[path] = n.from
		var ok bool
		if entries, ok = n.value.(map[string]*node); !ok {
			d.fail(path, n.from, "must be a section, not "+kindOf(n.value), fmt.Sprintf("write [%s]", path))
		}
	}
	fields := fieldsOf(v.Type())
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
		child, entry, fv := below(path, f.key), entries[f.key], v.FieldByIndex(f.Index)
		switch {
		case f.table():
			d.table(child, entry, fv)
		case f.tables():
			d.tables(child, entry, fv)
		case entry != nil:
			d.at[child] = entry.from
			d.value(child, entry, fv, f.Tag)
		default:
			if value, ok := f.Tag.Lookup("default"); ok {
				d.value(child, &node{value: text(value)}, fv, f.Tag)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if !slices.Contains(known, key) {
			d.unknown(path, key, entries[key], known)
		}
	}
	d.secretFiles(path, fields, v)
}

func (d *decoder) unknown(path, key string, n *node, known []string) {
	child, hint := below(path, key), didYouMean(key, known)
	for _, k := range keys {
		if section, last := splitPath(k.Path); hint == "" && last == key && section != "" {
			hint = fmt.Sprintf("%q belongs in %s", key, k.section())
		}
	}
	what := "unknown key"
	switch n.value.(type) {
	case map[string]*node, []*node:
		what = "unknown section or list"
	}
	d.fail(child, n.from, what, hint)
}

// section is the header below which the key stands in a file.
func (k Key) section() string {
	if k.elements[len(k.elements)-2] == indexed {
		return "[[" + strings.Join(withoutIndexes(k.elements[:len(k.elements)-1]), ".") + "]]"
	}
	return "[" + strings.Join(withoutIndexes(k.elements[:len(k.elements)-1]), ".") + "]"
}

func splitPath(path string) (section, key string) {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)], path[i+1:]
}

// tables fills a slice of structs. The first element keeps the path of the array, as in the environment.
func (d *decoder) tables(path string, n *node, v reflect.Value) {
	if n == nil {
		return
	}
	d.at[path] = n.from
	list, ok := n.value.([]*node)
	if !ok {
		hint := ""
		if _, single := n.value.(map[string]*node); single {
			hint = fmt.Sprintf("write [[%s]]", path)
		}
		d.fail(path, n.from, "must be a list of sections, not "+kindOf(n.value), hint)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
	for i, element := range list {
		child := path
		if i > 0 {
			child = below(path, strconv.Itoa(i))
		}
		if element == nil {
			d.fail(child, d.at[path], fmt.Sprintf("number %d is missing: indexes count from 0 without a gap", i), "")
			continue
		}
		d.table(child, element, v.Index(i))
	}
}

// value fills v from the scalar, list or map n.
func (d *decoder) value(path string, n *node, v reflect.Value, tag reflect.StructTag) {
	switch {
	case v.Kind() == reflect.Map:
		d.hosts(path, n, v.Addr().Interface().(*map[string][]netip.Addr))
	case v.Kind() == reflect.Slice:
		d.list(path, n, v, tag)
	default:
		if bad := scalar(n.value, v, tag.Get("range")); bad != nil {
			d.fail(path, n.from, bad.message, bad.hint)
		}
	}
}

func (d *decoder) list(path string, n *node, v reflect.Value, tag reflect.StructTag) {
	var elements []*node
	switch value := n.value.(type) {
	case []*node:
		elements = value
	case text:
		for _, part := range splitList(string(value)) {
			elements = append(elements, &node{text(part), n.from})
		}
	default:
		d.fail(path, n.from, "must be a list, not "+kindOf(n.value), `write ["one", "two"]`)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(elements), len(elements)))
	for i, e := range elements {
		d.value(path, e, v.Index(i), tag)
	}
}

func splitList(s string) (parts []string) {
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// hosts fills a table of names from { name = "address" | ["address", ...] } or from the text name=address,name=address.
func (d *decoder) hosts(path string, n *node, hosts *map[string][]netip.Addr) {
	*hosts = map[string][]netip.Addr{}
	add := func(name string, addresses *node) {
		var list []netip.Addr
		if _, many := addresses.value.([]*node); many {
			d.value(below(path, name), addresses, reflect.ValueOf(&list).Elem(), "")
		} else {
			list = make([]netip.Addr, 1)
			d.value(below(path, name), addresses, reflect.ValueOf(&list[0]).Elem(), "")
		}
		if !isDomainName(name) {
			d.fail(below(path, name), addresses.from, fmt.Sprintf("%q is not a host name", name), "")
		}
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		(*hosts)[name] = append((*hosts)[name], list...)
	}
	switch value := n.value.(type) {
	case map[string]*node:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			add(name, value[name])
		}
	case text:
		for _, pair := range splitList(string(value)) {
			name, address, _ := strings.Cut(pair, "=")
			add(strings.TrimSpace(name), &node{text(strings.TrimSpace(address)), n.from})
		}
	default:
		d.fail(path, n.from, "must be a table of names, not "+kindOf(n.value), `write { "name" = ["10.0.0.1"] }`)
	}
}

// badValue says what is wrong with a value.
type badValue struct{ message, hint string }

// scalar sets v to raw, which must have the type of v and lie in the range spec.
func scalar(raw any, v reflect.Value, spec string) *badValue {
	var bad *badValue
	switch {
	case v.Type() == durationType:
		bad = duration(raw, v, spec)
	case v.Type() == addressType:
		bad = address(raw, v)
	case v.Kind() == reflect.Bool:
		bad = boolean(raw, v)
	case v.Kind() == reflect.String:
		bad = str(raw, v, spec)
	default:
		bad = integer(raw, v, spec)
	}
	return bad
}

// characters returns raw as a string; ok is false for other TOML types.
func characters(raw any) (s string, ok bool) {
	switch raw := raw.(type) {
	case string:
		return raw, true
	case text:
		return string(raw), true
	}
	return "", false
}

func str(raw any, v reflect.Value, spec string) *badValue {
	s, ok := characters(raw)
	if !ok {
		return &badValue{"must be a string, not " + kindOf(raw), "write the value in quotes"}
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return &badValue{"must be UTF-8 text without control characters", ""}
	}
	if e, ok := v.Interface().(enumeration); ok && !slices.Contains(e.values(), s) {
		return &badValue{fmt.Sprintf("%q is not one of %s", shortened(s), strings.Join(e.values(), ", ")), didYouMean(s, e.values())}
	}
	if spec != "" && !within(spec, int64(len(s)), parseInteger) {
		return &badValue{fmt.Sprintf("is %d bytes long; allowed: %s bytes", len(s), rangeInWords(spec)), ""}
	}
	v.SetString(s)
	return nil
}

func boolean(raw any, v reflect.Value) *badValue {
	if s, ok := raw.(text); ok {
		switch strings.ToLower(string(s)) {
		case "true", "yes", "on", "1":
			raw = true
		case "false", "no", "off", "0":
			raw = false
		}
	}
	b, ok := raw.(bool)
	if !ok {
		return &badValue{"must be true or false, not " + kindOf(raw), ""}
	}
	v.SetBool(b)
	return nil
}

func integer(raw any, v reflect.Value, spec string) *badValue {
	if s, ok := raw.(text); ok {
		if i, ok := parseInteger(string(s)); ok {
			raw = i
		}
	}
	i, ok := raw.(int64)
	if !ok {
		return &badValue{"must be a whole number, not " + kindOf(raw), ""}
	}
	if spec == "" {
		spec = "0.." + strconv.Itoa(math.MaxUint16)
	}
	if !within(spec, i, parseInteger) {
		return &badValue{fmt.Sprintf("%d is out of range; allowed: %s", i, rangeInWords(spec)), ""}
	}
	if v.CanInt() {
		v.SetInt(i)
	} else {
		v.SetUint(uint64(i))
	}
	return nil
}

func duration(raw any, v reflect.Value, spec string) *badValue {
	s, ok := characters(raw)
	if !ok {
		return &badValue{"must be a duration in quotes, not " + kindOf(raw), `write "60s", "500ms", "5m" or "1h"`}
	}
	i, ok := parseDuration(s)
	if !ok {
		return &badValue{fmt.Sprintf("%q is not a duration", shortened(s)), `write "60s", "500ms", "5m" or "1h"`}
	}
	if !within(spec, i, parseDuration) {
		return &badValue{fmt.Sprintf("%s is out of range; allowed: %s", s, rangeInWords(spec)), ""}
	}
	v.SetInt(i)
	return nil
}

func address(raw any, v reflect.Value) *badValue {
	s, ok := characters(raw)
	if !ok {
		return &badValue{"must be an IP address in quotes, not " + kindOf(raw), ""}
	}
	if s == "" { // as good as not set
		return nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.IsUnspecified() || a.IsMulticast() {
		return &badValue{fmt.Sprintf("%q is not the IP address of a host", shortened(s)), ""}
	}
	v.Set(reflect.ValueOf(a.Unmap()))
	return nil
}

func parseInteger(s string) (int64, bool) {
	i, err := strconv.ParseInt(s, 10, 64)
	return i, err == nil
}

func parseDuration(s string) (int64, bool) {
	d, err := time.ParseDuration(s)
	return int64(d), err == nil
}

// within reports whether x is in the range spec: "0,1s..1h" is zero or one second to one hour.
func within(spec string, x int64, parse func(string) (int64, bool)) bool {
	for part := range strings.SplitSeq(spec, ",") {
		low, high, span := strings.Cut(part, "..")
		if !span {
			high = low
		}
		from, ok1 := parse(low)
		to, ok2 := parse(high)
		if ok1 && ok2 && from <= x && x <= to {
			return true
		}
	}
	return false
}

func rangeInWords(spec string) string {
	return strings.NewReplacer("..", " to ", ",", " or ").Replace(spec)
}

// shortened bounds what an error quotes.
func shortened(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// kindOf words the type of a value.
func kindOf(raw any) string {
	switch raw.(type) {
	case string:
		return "a string"
	case text:
		return "such a text"
	case bool:
		return "true or false"
	case int64:
		return "a number"
	case float64:
		return "a fraction"
	case map[string]*node:
		return "a section"
	case []*node:
		return "a list"
	default:
		return "a date or time"
	}
}

// secretFiles reads the "_file" of each secret of a table. Of the two the one from the stronger source counts;
// both from one source are a problem.
func (d *decoder) secretFiles(path string, fields []field, v reflect.Value) {
	for _, f := range fields {
		if f.Type != secretType {
			continue
		}
		key, fileKey := below(path, f.key), below(path, f.key+"_file")
		inline, isInline := d.at[key]
		file, isFile := d.at[fileKey]
		if !isFile || d.failed[fileKey] {
			continue
		}
		name := v.FieldByName(f.Name + "File")
		switch {
		case name.String() == "":
			continue
		case isInline && inline.rank > file.rank:
			name.SetString("")
			continue
		case isInline && inline.rank == file.rank:
			d.fail(fileKey, file, fmt.Sprintf("%s and %s are both set; use one", f.key, f.key+"_file"), "")
			continue
		}
		if !filepath.IsAbs(name.String()) && file.file != "" {
			name.SetString(filepath.Join(filepath.Dir(file.file), name.String()))
		}
		secret, info, err := readBounded(name.String(), maxSecretSize)
		if err != nil {
			d.fail(fileKey, file, fmt.Sprintf("%s: %v", name, err), "")
			continue
		}
		d.at[key] = file
		if bad := str(trimNewline(string(secret)), v.FieldByIndex(f.Index), f.Tag.Get("range")); bad != nil {
			d.fail(fileKey, file, fmt.Sprintf("the secret in %s %s", name, bad.message), bad.hint)
		}
		d.warnIfOpen(name.String(), info, file, fileKey)
	}
}

// trimNewline removes one newline at the end, as editors and echo leave it.
func trimNewline(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

// warnIfOpen warns of a file with a secret that every user of the machine may read. Mounted secrets of Docker and
// Kubernetes are readable to all by design; nobody else is in the container.
func (d *decoder) warnIfOpen(name string, info fs.FileInfo, from origin, path string) {
	if runtime.GOOS == "windows" || info.Mode().Perm()&0o004 == 0 {
		return
	}
	if strings.HasPrefix(name, "/run/secrets/") || strings.HasPrefix(name, "/var/run/secrets/") {
		return
	}
	d.warnings = append(d.warnings, from.problem(path, fmt.Sprintf("%s holds a secret and every user may read it", name), "chmod 600"))
}

// holdsSecret reports whether the file of the configuration itself contains a secret.
func (n *node) holdsSecret() bool {
	if n.from.rank > byFile {
		return false
	}
	switch v := n.value.(type) {
	case map[string]*node:
		for key, entry := range v {
			_, isText := entry.value.(string)
			if isText && slices.ContainsFunc(keys, func(k Key) bool { return k.secret && k.elements[len(k.elements)-1] == key }) {
				return true
			}
			if entry.holdsSecret() {
				return true
			}
		}
	case []*node:
		return slices.ContainsFunc(v, func(e *node) bool { return e != nil && e.holdsSecret() })
	}
	return false
}
