package config

import (
	"encoding"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
)

// decoder puts TOML values into the fields of a Config and gathers everything that does not fit.
type decoder struct {
	c    *Config
	errs []*Error
}

func (d *decoder) fail(key, format string, args ...any) {
	d.errs = append(d.errs, d.c.errorf(key, format, args...))
}

// table fills the fields of a struct.
func (d *decoder) table(path string, to reflect.Value, values map[string]any) {
	fields := fieldsOf(to.Type())
	for key, v := range values {
		i, ok := fields[key]
		if !ok {
			d.fail(extend(path, key), "unknown key %q%s", extend(path, key), suggest(key, to.Type()))
			continue
		}
		d.value(extend(path, key), to.Field(i), v)
	}
}

func (d *decoder) value(path string, to reflect.Value, v any) {
	if u, ok := to.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if b, ok := v.(bool); ok && to.Type() == reflect.TypeFor[Override]() {
			v = strconv.FormatBool(b)
		}
		switch v.(type) {
		case string, int64:
			if err := u.UnmarshalText(fmt.Append(nil, v)); err != nil {
				d.fail(path, "%s: %v", path, err)
			}
		default:
			d.fail(path, "%s must be a string or a number, not %s", path, kind(v))
		}
		return
	}
	switch to.Kind() {
	case reflect.String:
		if s, ok := v.(string); ok {
			to.SetString(s)
			return
		}
		d.fail(path, "%s must be a string, not %s", path, kind(v))
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			to.SetBool(b)
			return
		}
		d.fail(path, "%s must be true or false, not %s", path, kind(v))
	case reflect.Struct:
		if t, ok := v.(map[string]any); ok {
			d.table(path, to, t)
			return
		}
		d.fail(path, "%s must be a table, not %s", path, kind(v))
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			d.fail(path, "%s must be a %s, not %s", path, listOf(to.Type()), kind(v))
			return
		}
		s := reflect.MakeSlice(to.Type(), len(list), len(list))
		for i, e := range list {
			preset(s.Index(i))
			d.value(fmt.Sprintf("%s[%d]", path, i), s.Index(i), e)
		}
		to.Set(s)
	default:
		panic("config: a field of kind " + to.Kind().String())
	}
}

// preset gives an element of a list of tables the defaults of its keys.
func preset(v reflect.Value) {
	switch e := v.Addr().Interface().(type) {
	case *Domain:
		e.Registration = Closed
	case *Service:
		e.Transport, e.Lifetime = "udp", Duration(24*time.Hour)
	}
}

func listOf(t reflect.Type) string {
	if t.Elem().Kind() == reflect.Struct {
		return "list of tables, written [[…]]"
	}
	return "list of strings"
}

// kind names the type of a TOML value.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date"
}

// fieldsOf maps the keys of a table to the fields of its struct.
func fieldsOf(t reflect.Type) map[string]int {
	fields := make(map[string]int)
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("toml"); key != "" && key != "-" {
			fields[key] = i
		}
	}
	return fields
}

// suggest is ": did you mean …?" for an unknown key of a table: a key of that table that is spelled alike, else the same key where it
// belongs, else "".
func suggest(key string, t reflect.Type) string {
	best, least := "", 1+len(key)/3 // chosen: a third of the letters may be wrong
	for k := range fieldsOf(t) {
		if n := distance(key, k); n < least || n == least && (best == "" || k < best) {
			best, least = k, n
		}
	}
	if best == "" {
		if places := places(key, "", reflect.TypeFor[Config]()); len(places) > 0 {
			sort.Strings(places)
			return fmt.Sprintf(": did you mean %q?", places[0])
		}
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// places are the full names of every key that is spelled key.
func places(key, path string, t reflect.Type) (found []string) {
	for k, i := range fieldsOf(t) {
		name, ft := extend(path, k), t.Field(i).Type
		if strings.EqualFold(k, key) {
			found = append(found, name)
		}
		if ft.Kind() == reflect.Slice {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			found = append(found, places(key, name, ft)...)
		}
	}
	return found
}

// distance is the number of letters to insert, remove or replace between two words (Levenshtein), in lower case and with - as _.
func distance(a, b string) int {
	a, b = strings.ReplaceAll(strings.ToLower(a), "-", "_"), strings.ReplaceAll(strings.ToLower(b), "-", "_")
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
