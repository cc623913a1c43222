package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

const (
	maxFileSize   = 1 << 20 // bytes of a configuration file
	maxSecretSize = 4096    // bytes of a file that holds a secret
	maxTables     = 1000    // elements of an array of tables set by the environment or by flags
)

// Sources are the places a configuration comes from. Overrides win over Environ, Environ over File.
type Sources struct {
	File      string            // path of the TOML file; "" is none
	Environ   []string          // as os.Environ gives it; only GATEWAY_ variables are looked at, empty ones count as not set
	Overrides map[string]string // from flags: key path ("proxy.socks5") to value, written as in the environment; no secrets
}

// Load reads, merges, decodes and validates. The error joins everything that is wrong (see [Problems]).
// Files read: Sources.File and the files of secrets that it names.
func Load(s Sources) (*Config, error) {
	root, info, problem := readFile(s.File)
	if problem != nil {
		return nil, join([]*Problem{problem})
	}
	d := &decoder{at: map[string]origin{}, failed: map[string]bool{}}
	d.environment(root, s.Environ)
	d.overrides(root, s.Overrides)

	c := new(Config)
	d.decode(root, c)
	if s.File != "" && root.holdsSecret() {
		d.warnIfOpen(s.File, info, origin{file: s.File}, "")
	}
	v := checker{at: d.at, failed: d.failed}
	v.config(c)
	c.Warnings = append(d.warnings, v.warnings...)
	if err := join(append(d.problems, v.problems...)); err != nil {
		return nil, err
	}
	return c, nil
}

// Default returns a configuration with every default and one tunnel, for callers that fill in the rest themselves.
// The tunnel lacks Server, Username and Password.
func Default() *Config {
	d := &decoder{at: map[string]origin{}, failed: map[string]bool{}}
	c := new(Config)
	d.decode(&node{value: map[string]*node{"tunnel": {value: []*node{{value: map[string]*node{}}}}}}, c)
	return c
}

// A node is one value on its way to the Config: bool, int64, float64, string or a time as TOML has them, text, []*node
// or map[string]*node.
type node struct {
	value any
	from  origin
}

// text is a value from the environment or a flag: its type is that of the key.
type text string

// origin says where a value was set. The zero origin is a default.
type origin struct {
	rank    int // the higher one wins
	file    string
	place   place
	setting string
}

const (
	byFile = iota + 1
	byEnvironment
	byOverride
)

// readFile parses the file into a tree and also returns what Stat says of it.
func readFile(path string) (*node, fs.FileInfo, *Problem) {
	if path == "" {
		return &node{value: map[string]*node{}}, nil, nil
	}
	data, info, err := readBounded(path, maxFileSize)
	if err != nil {
		return nil, nil, &Problem{File: path, Message: err.Error()}
	}
	var tree map[string]any
	if _, err := toml.Decode(string(data), &tree); err != nil {
		return nil, nil, syntaxProblem(path, string(data), err)
	}
	return (&grower{path, locate(string(data))}).grow("", tree), info, nil
}

// syntaxProblem words an error of the TOML library. Such an error may quote the text, so it is not repeated where
// the text is a secret that lacks its quotes.
func syntaxProblem(path, data string, err error) *Problem {
	p := &Problem{File: path, Message: "not valid TOML"}
	var syntax toml.ParseError
	if !errors.As(err, &syntax) {
		return p
	}
	p.Line, p.Column = syntax.Position.Line, syntax.Position.Col
	lines := strings.Split(data, "\n")
	line := lines[min(max(p.Line, 1), len(lines))-1]
	for _, k := range keys {
		name := k.elements[len(k.elements)-1]
		if k.secret && (strings.Contains(line, name) || syntax.LastKey == name || strings.HasSuffix(syntax.LastKey, "."+name)) {
			p.Hint = "write the value in quotes"
			return p
		}
	}
	p.Message += ": " + syntax.Message
	return p
}

// A grower makes nodes of what the TOML library decoded.
type grower struct {
	file   string
	places map[string]place
}

func (g *grower) grow(path string, value any) *node {
	n := &node{value: value, from: origin{rank: byFile, file: g.file, place: g.places[path]}}
	switch v := value.(type) {
	case map[string]any:
		table := make(map[string]*node, len(v))
		for key, entry := range v {
			table[key] = g.grow(below(path, key), entry)
		}
		n.value = table
	case []map[string]any:
		list := make([]*node, len(v))
		for i := range v {
			list[i] = g.grow(below(path, strconv.Itoa(i)), v[i])
		}
		n.value = list
	case []any:
		list := make([]*node, len(v))
		for i := range v {
			list[i] = g.grow(below(path, strconv.Itoa(i)), v[i])
		}
		n.value = list
	}
	return n
}

// environment puts the GATEWAY_ variables into the tree.
func (d *decoder) environment(root *node, environ []string) {
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		spelled, ours := strings.CutPrefix(name, EnvPrefix)
		if !ours || value == "" || name == EnvFile {
			continue
		}
		from := origin{rank: byEnvironment, setting: name}
		key, elements, ok := findKey(strings.ToLower(spelled), "_")
		switch {
		case ok:
			d.set(root, key.elements, elements, &node{text(value), from})
		case !describesService(spelled, value):
			d.fail("", from, "unknown environment variable", didYouMean(name, append(allNames(func(k Key) string { return k.Env }), EnvFile)))
		}
	}
}

// describesService reports whether the variable is one that Kubernetes (and Docker's links) set for a service whose name
// begins with "gateway": GATEWAY_SERVICE_HOST, GATEWAY_PORT=tcp://..., GATEWAY_PORT_1080_TCP_ADDR.
func describesService(spelled, value string) bool {
	spelled = "_" + spelled
	if strings.Contains(spelled, "_SERVICE_HOST") || strings.Contains(spelled, "_SERVICE_PORT") {
		return true
	}
	if _, port, ok := strings.Cut(spelled, "_PORT_"); ok {
		number, protocol, _ := strings.Cut(port, "_")
		_, err := strconv.ParseUint(number, 10, 16)
		protocol, _, _ = strings.Cut(protocol, "_")
		return err == nil && slices.Contains([]string{"TCP", "UDP", "SCTP"}, protocol)
	}
	scheme, _, isURL := strings.Cut(value, "://")
	return strings.HasSuffix(spelled, "_PORT") && isURL && slices.Contains([]string{"tcp", "udp", "sctp"}, scheme)
}

func allNames(name func(Key) string) (names []string) {
	for _, k := range keys {
		names = append(names, name(k))
	}
	return names
}

// overrides puts values of flags into the tree.
func (d *decoder) overrides(root *node, values map[string]string) {
	for _, path := range slices.Sorted(maps.Keys(values)) {
		from := origin{rank: byOverride, setting: path}
		key, elements, ok := findKey(path, ".")
		switch {
		case !ok:
			d.fail(path, from, "unknown key", didYouMean(path, allNames(func(k Key) string { return k.Path })))
		case key.secret:
			d.fail(path, from, "a secret does not belong on the command line", "use "+key.Path+"_file or "+key.Env)
		default:
			d.set(root, key.elements, elements, &node{text(values[path]), from})
		}
	}
}

// set returns n with leaf at elements below it, making tables on the way. Where n is something else than the table of
// the template nothing is set: decoding complains about n.
func (d *decoder) set(n *node, template, elements []string, leaf *node) *node {
	if len(elements) == 0 {
		if n != nil && n.from.rank == leaf.from.rank {
			d.fail("", leaf.from, "sets the same as "+n.from.setting, "")
		}
		return leaf
	}
	if n == nil {
		n = &node{value: map[string]*node{}, from: leaf.from}
		if template[0] == indexed {
			n.value = []*node{}
		}
	}
	switch v := n.value.(type) {
	case map[string]*node:
		if template[0] != indexed {
			v[elements[0]] = d.set(v[elements[0]], template[1:], elements[1:], leaf)
		}
	case []*node:
		i, err := strconv.Atoi(elements[0])
		if err != nil || i >= maxTables {
			d.fail("", leaf.from, fmt.Sprintf("the index must be less than %d", maxTables), "")
			return n
		}
		for len(v) <= i {
			v = append(v, nil)
		}
		v[i] = d.set(v[i], template[1:], elements[1:], leaf)
		n.value = v
	}
	return n
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, cause(err)
	}
	if !info.Mode().IsRegular() { // a pipe could block for ever
		return nil, nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, cause(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, cause(err)
	}
	if int64(len(data)) > limit {
		return nil, nil, fmt.Errorf("larger than %d bytes", limit)
	}
	return data, info, nil
}

// cause strips the operation and the path, which the Problem names already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
