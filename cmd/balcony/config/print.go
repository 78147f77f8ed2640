package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"regexp"
	"strings"
)

// Masked stands for a secret in what Print writes.
const Masked = "***"

// Print writes the configuration as TOML. Secrets are masked.
func (c *Config) Print(w io.Writer) error {
	var b strings.Builder
	printTable(&b, "", reflect.ValueOf(c).Elem())
	_, err := io.WriteString(w, b.String())
	return err
}

// printTable writes the keys of a table, then its sub-tables, as TOML wants it.
func printTable(b *strings.Builder, path string, v reflect.Value) {
	each := func(f func(key, path string, field reflect.StructField, v reflect.Value)) {
		for i := range v.NumField() {
			if key := v.Type().Field(i).Tag.Get("toml"); key != "" && key != "-" {
				f(key, extend(path, key), v.Type().Field(i), v.Field(i))
			}
		}
	}
	each(func(key, path string, field reflect.StructField, v reflect.Value) {
		if isTable(field.Type) {
			return
		}
		fmt.Fprintf(b, "%s = %s\n", key, literal(field, path, v))
	})
	each(func(_, path string, field reflect.StructField, v reflect.Value) {
		switch {
		case !isTable(field.Type):
		case field.Type.Kind() == reflect.Struct:
			if !v.IsZero() || path != "domain.contact" {
				fmt.Fprintf(b, "\n[%s]\n", path)
				printTable(b, path, v)
			}
		default:
			for i := range v.Len() {
				fmt.Fprintf(b, "\n[[%s]]\n", path)
				printTable(b, path, v.Index(i))
			}
		}
	})
}

// isTable reports whether a field is written as [table] or [[table]].
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// literal writes a value in TOML.
func literal(field reflect.StructField, path string, v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			panic("config: " + err.Error())
		}
		if c, ok := v.Interface().(Count); ok && c != Off {
			return string(text)
		}
		return quote(string(text))
	}
	switch v.Kind() {
	case reflect.Bool:
		return fmt.Sprint(v.Bool())
	case reflect.Slice:
		list := make([]string, v.Len())
		for i := range list {
			list[i] = quote(v.Index(i).String())
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	s := v.String()
	switch {
	case s != "" && field.Tag.Get("secret") != "":
		s = Masked
	case path == "storage.dsn":
		s = MaskDSN(s)
	}
	return quote(s)
}

// quote writes a TOML basic string: JSON's escapes are among its own, and only DEL must be escaped in addition.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("config: " + err.Error())
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007F`)
}

var dsnPassword = regexp.MustCompile(`(?i)\b(password|sslpassword)(\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)`)

// MaskDSN replaces the passwords in a lib/pq connection string, which may be a URL or a list of key=value pairs.
func MaskDSN(dsn string) string {
	if !strings.Contains(dsn, "://") {
		return dsnPassword.ReplaceAllString(dsn, "${1}${2}"+Masked)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return Masked // it cannot be used either, and what is wrong with it may be the password
	}
	_, hasPassword := u.User.Password()
	if hasPassword {
		u.User = url.UserPassword(u.User.Username(), Masked)
	}
	q := u.Query()
	for _, key := range []string{"password", "sslpassword"} {
		if q.Has(key) {
			q.Set(key, Masked)
		}
	}
	if len(q) > 0 {
		u.RawQuery = q.Encode()
	}
	// The * of the mask is not a character that needs escaping in either place; keep it readable.
	return strings.ReplaceAll(u.String(), "%2A%2A%2A", Masked)
}
