package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

const page = "../../../docs/configuration.md"

// TestReferencePage compares docs/configuration.md with the comments and defaults it is generated from; make docs writes it.
func TestReferencePage(t *testing.T) {
	want := reference(t)
	if os.Getenv("BALCONY_WRITE_DOCS") != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/configuration.md is stale: run make docs")
	}
}

// TestEveryKeyIsDocumented: the reference is no use otherwise.
func TestEveryKeyIsDocumented(t *testing.T) {
	docs := comments(t)
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Tag.Get("toml") == "" {
				continue
			}
			if docs[typ.Name()+"."+f.Name] == "" {
				t.Errorf("%s.%s has no comment", typ.Name(), f.Name)
			}
			if isTable(f.Type) {
				check(element(f.Type))
			}
		}
	}
	check(reflect.TypeFor[Config]())
}

func element(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Slice {
		return t.Elem()
	}
	return t
}

// comments are the comments of all struct fields of config.go, each as one line: "Limits.Stanza" → "The largest …".
func comments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	docs := make(map[string]string)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					docs[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return false
	})
	return docs
}

// reference writes the page.
func reference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`<!-- Code generated from cmd/balcony/config/config.go by "make docs". DO NOT EDIT. -->

# Configuration

Balcony needs no configuration: without a file it serves the domain ` + "`localhost`" + ` on loopback and keeps its data in ` + "`./balcony-data`" + `.

It reads one [TOML](https://toml.io) file: the one that ` + "`--config FILE`" + ` names, else ` + "`balcony.toml`" + ` in the current folder if there is one.
An unknown key and a value that makes no sense are errors. ` + "`balcony check`" + ` reports all of them with their lines, without starting
anything, and prints the configuration that is in effect.

On SIGHUP the server reads the file again. The last column tells when a changed key takes effect: *now*, *for new connections*, or *after a
restart*. A file with errors changes nothing. Certificate files are read again on SIGHUP and once a day.

The whole file with its defaults:

` + "```toml\n")
	if err := Default().Print(&b); err != nil {
		t.Fatal(err)
	}
	b.WriteString("```\n\n## Top level\n")
	docs := comments(t)
	defaults := Default()
	keys(&b, docs, "", reflect.ValueOf(defaults).Elem())
	tables(&b, docs, "", reflect.ValueOf(defaults).Elem())
	return b.String()
}

// tables writes a section for each table inside of a table.
func tables(b *strings.Builder, docs map[string]string, path string, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("toml") == "" || !isTable(f.Type) {
			continue
		}
		name := extend(path, f.Tag.Get("toml"))
		heading, value := "["+name+"]", v.Field(i)
		if f.Type.Kind() == reflect.Slice {
			heading, value = "["+heading+"]", reflect.New(f.Type.Elem()).Elem()
			preset(value)
		}
		fmt.Fprintf(b, "\n## `%s`\n\n%s\n", heading, docs[v.Type().Name()+"."+f.Name])
		keys(b, docs, name, value)
		tables(b, docs, name, value)
	}
}

// keys writes the keys of a table.
func keys(b *strings.Builder, docs map[string]string, path string, v reflect.Value) {
	b.WriteString("\n| key | default | meaning | changes take effect |\n|---|---|---|---|\n")
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("toml")
		if name == "" || name == "-" || isTable(f.Type) {
			continue
		}
		value := literal(f, extend(path, name), v.Field(i))
		fmt.Fprintf(b, "| `%s` | `%s` | %s | %s |\n", name, value, strings.ReplaceAll(docs[v.Type().Name()+"."+f.Name], "|", `\|`), effectOf(f.Tag))
	}
}
