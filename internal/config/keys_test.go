package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const examplePath = "../../config.toml.example"

// A commented key of the example: "# key = value", spaces before "=", then the rest of the line.
var commentedKey = regexp.MustCompile(`^# ([a-z0-9_]+ += .*|\[\[proxy\.user\]\].*)$`)

// uncommented is the example with its commented keys switched on: those that show a default, or all.
func uncommented(t *testing.T, examplesToo bool) string {
	t.Helper()
	data, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for i, line := range lines {
		m := commentedKey.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		value, comment, _ := strings.Cut(m[1], "#")
		isExample := strings.HasPrefix(strings.TrimSpace(comment), "example;") || strings.HasPrefix(value, "[[")
		if isExample && !examplesToo {
			continue
		}
		if example, ok := strings.CutPrefix(strings.TrimSpace(comment), "example: "); ok && examplesToo {
			key, _, _ := strings.Cut(value, "=")
			value = key + "= " + strings.SplitN(example, "; ", 2)[0]
		}
		lines[i] = value
	}
	return strings.Join(lines, "\n")
}

func TestExampleIsValid(t *testing.T) {
	if c := load(t, Sources{File: examplePath}); c.Tunnels[0].Server == "" {
		t.Error("no server in the example")
	}
}

func TestExampleShowsTheDefaults(t *testing.T) {
	got := load(t, Sources{File: write(t, "c.toml", uncommented(t, false))})
	if diff := cmp.Diff(load(t, Sources{File: examplePath}), got, equalConfigs); diff != "" {
		t.Errorf("-default +what the example says:\n%s", diff)
	}
}

// The secrets and the GRE socket that the examples name are set twice; that is all that may be wrong with them.
func TestExamplesInTheExampleAreValid(t *testing.T) {
	_, err := Load(Sources{File: write(t, "c.toml", uncommented(t, true))})
	problems := Problems(err)
	for _, p := range problems {
		if !strings.HasSuffix(p.Message, "are both set; use one") {
			t.Error(p)
		}
	}
	if len(problems) != 7 {
		t.Errorf("%d problems, want 7 (password, user password, secret, GRE socket, pre-shared key, certificate, its password): %v", len(problems), err)
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	places := locate(uncommented(t, true))
	for _, k := range Keys() {
		path := strings.ReplaceAll(strings.Join(k.elements, "."), indexed, "0")
		if _, ok := places[path]; !ok {
			t.Errorf("config.toml.example does not explain %s", k.Path)
		}
	}
}

// sample gives a valid value that is not the default.
func sample(k Key, secretFile string) string {
	words := strings.Fields(strings.ReplaceAll(k.Allowed, ",", ""))
	switch {
	case strings.HasSuffix(k.Path, "_file"):
		return secretFile
	case k.Type == "boolean" && k.Default == "true":
		return "off"
	case k.Type == "boolean":
		return "on"
	case k.Type == "address", k.Type == "list of address":
		return "192.0.2.7"
	case k.Type == "hosts":
		return "a.example=192.0.2.7"
	case len(words) > 0 && words[len(words)-1] != "bytes": // the last name, or the end of the range
		return words[len(words)-1]
	case k.Type == "integer":
		return "1280"
	}
	return "some.text"
}

// read decodes without the rules over several keys.
func read(environ []string, overrides map[string]string) (*Config, []*Problem) {
	d := &decoder{at: map[string]origin{}, failed: map[string]bool{}}
	root := &node{value: map[string]*node{}}
	d.environment(root, environ)
	d.overrides(root, overrides)
	c := new(Config)
	d.decode(root, c)
	return c, d.problems
}

// at walks down to the field of a key, in the first element of each array of tables.
func at(v reflect.Value, elements []string) reflect.Value {
	for _, e := range elements {
		if e == indexed {
			v = v.Index(0)
			continue
		}
		for _, f := range fieldsOf(v.Type()) {
			if f.key == e {
				v = v.FieldByIndex(f.Index)
				break
			}
		}
	}
	return v
}

func TestEveryKeyCanBeSetByEnvironmentAndFlag(t *testing.T) {
	secretFile := write(t, "secret", "from the file")
	base := []string{"GATEWAY_TUNNEL_SERVER=vpn", "GATEWAY_PROXY_USER_NAME=bob"}
	for _, k := range Keys() {
		t.Run(k.Env, func(t *testing.T) {
			want, _ := read(base, nil)
			environ := append([]string{k.Env + "=" + sample(k, secretFile)}, base...)
			for i, b := range base {
				if strings.HasPrefix(b, k.Env+"=") {
					environ = append([]string{k.Env + "=" + sample(k, secretFile)}, base[1-i])
				}
			}
			got, problems := read(environ, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			field, before := at(reflect.ValueOf(got).Elem(), k.elements), at(reflect.ValueOf(want).Elem(), k.elements)
			if reflect.DeepEqual(field.Interface(), before.Interface()) {
				t.Errorf("the value stays %v", field)
			}
			before.Set(field)
			if section, key, ok := strings.Cut(strings.Join(k.elements, "."), "_file"); ok && key == "" {
				secret := strings.Split(section, ".")
				at(reflect.ValueOf(want).Elem(), secret).Set(reflect.ValueOf(Secret("from the file")))
			}
			if diff := cmp.Diff(want, got, equalConfigs); diff != "" {
				t.Errorf("another key changed too:\n%s", diff)
			}

			byFlag, problems := read(base, map[string]string{k.Path: sample(k, secretFile)})
			if k.secret {
				if len(problems) != 1 || strings.Contains(problems[0].Error(), sample(k, secretFile)) {
					t.Errorf("a secret on the command line: %v", problems)
				}
				return
			}
			if diff := cmp.Diff(got, byFlag, equalConfigs); diff != "" || len(problems) > 0 {
				t.Errorf("-environment +flag:\n%s%v", diff, problems)
			}
		})
	}
}

func TestDefaultsAreInTheirRange(t *testing.T) {
	if _, problems := read([]string{"GATEWAY_TUNNEL_SERVER=vpn"}, nil); len(problems) > 0 {
		t.Error(problems)
	}
}
