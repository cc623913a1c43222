package config

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

const (
	// EnvPrefix begins the name of every environment variable of the gateway.
	EnvPrefix = "GATEWAY_"
	// EnvFile names the configuration file. It is the caller's to read; Load passes it by.
	EnvFile = EnvPrefix + "CONFIG"
)

// A Key is one setting: a name in the file and in the environment.
type Key struct {
	Path    string // "tunnel.l2tp.port"; "tunnel.1.l2tp.port" is that of the second tunnel, counted from 0
	Env     string // "GATEWAY_TUNNEL_L2TP_PORT"; GATEWAY_TUNNEL_1_L2TP_PORT is that of the second tunnel
	Type    string // "string", "secret", "boolean", "integer", "duration", "address", "list of ...", "hosts"
	Default string // as written in the environment; "" is empty, false or 0
	Allowed string // in words; "" is anything of its type

	elements []string // the path, with indexed in front of the keys of an array of tables
	secret   bool
}

// indexed stands in Key.elements for the index of an array of tables.
const indexed = "#"

// keys is the table of all settings, in the order of the structs.
var keys = appendKeys(nil, nil, reflect.TypeFor[Config]())

// Keys returns all settings in the order of the example file.
func Keys() []Key { return append([]Key(nil), keys...) }

func appendKeys(all []Key, parents []string, t reflect.Type) []Key {
	for _, f := range fieldsOf(t) {
		elements := append(parents[:len(parents):len(parents)], f.key)
		switch {
		case f.table():
			all = appendKeys(all, elements, f.Type)
		case f.tables():
			all = appendKeys(all, append(elements, indexed), f.Type.Elem())
		default:
			all = append(all, f.describe(elements))
		}
	}
	return all
}

// A field is a struct field that has a key.
type field struct {
	reflect.StructField
	key string
}

func fieldsOf(t reflect.Type) (fields []field) {
	for i := range t.NumField() {
		if key, ok := t.Field(i).Tag.Lookup("toml"); ok {
			fields = append(fields, field{t.Field(i), key})
		}
	}
	return fields
}

func (f field) table() bool { return f.Type.Kind() == reflect.Struct && f.Type != addressType }
func (f field) tables() bool {
	return f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && f.Type.Elem() != addressType
}

var (
	addressType  = reflect.TypeFor[netip.Addr]()
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[Secret]()
)

func (f field) describe(elements []string) Key {
	path := strings.Join(withoutIndexes(elements), ".")
	k := Key{
		Path:     path,
		Env:      EnvPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_")),
		Type:     typeName(f.Type),
		Default:  f.Tag.Get("default"),
		elements: elements,
		secret:   f.Type == secretType,
	}
	if spec := f.Tag.Get("range"); spec != "" {
		k.Allowed = rangeInWords(spec)
		if f.Type.Kind() == reflect.String {
			k.Allowed += " bytes"
		}
	}
	scalar := f.Type
	if scalar.Kind() == reflect.Slice {
		scalar = scalar.Elem()
	}
	if e, ok := reflect.Zero(scalar).Interface().(enumeration); ok {
		k.Allowed = strings.Join(e.values(), ", ")
	}
	return k
}

func typeName(t reflect.Type) string {
	switch {
	case t == secretType:
		return "secret"
	case t == durationType:
		return "duration"
	case t == addressType:
		return "address"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Map:
		return "hosts"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.String:
		return "string"
	default:
		return "integer"
	}
}

func withoutIndexes(elements []string) (plain []string) {
	for _, e := range elements {
		if e != indexed {
			plain = append(plain, e)
		}
	}
	return plain
}

// findKey finds the key that name spells with its elements joined by separator, and returns its elements with the
// indexes filled in. An index may be left out; it is 0 then.
func findKey(name, separator string) (k Key, elements []string, ok bool) {
	for _, k := range keys {
		if elements, ok := k.match(name, separator); ok {
			return k, elements, true
		}
	}
	return Key{}, nil, false
}

func (k Key) match(name, separator string) (elements []string, ok bool) {
	rest := separator + name
	for _, e := range k.elements {
		if e == indexed {
			var index string
			index, rest = cutIndex(rest, separator)
			elements = append(elements, index)
			continue
		}
		if rest, ok = strings.CutPrefix(rest, separator+e); !ok {
			return nil, false
		}
		elements = append(elements, e)
	}
	return elements, rest == ""
}

// cutIndex cuts a leading separator and number off name; without one the index is "0".
func cutIndex(name, separator string) (index, rest string) {
	digits := strings.TrimPrefix(name, separator)
	n := 0
	for n < len(digits) && digits[n] >= '0' && digits[n] <= '9' {
		n++
	}
	i, err := strconv.Atoi(digits[:n])
	if err != nil {
		return "0", name
	}
	return strconv.Itoa(i), digits[n:]
}
