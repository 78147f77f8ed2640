package config

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Error is one thing that is wrong with a configuration. Its text is "FILE:LINE: message", as far as there is a file and a line.
type Error struct {
	File    string
	Line    int    // 0 when the key does not stand in the file
	Key     string // such as "limits.stanza" or "domain[0].name"
	Message string
}

func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Message
	case e.Line == 0:
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

// join sorts errors by line, keeps the first of each key, and joins them. A message about a key that could not be read hides those
// about its value.
func join(errs []*Error) error {
	sort.SliceStable(errs, func(i, j int) bool { return errs[i].Line < errs[j].Line })
	seen := make(map[string]bool)
	var all []error
	for _, e := range errs {
		if e.Key == "" || !seen[e.Key] {
			all = append(all, e)
		}
		seen[e.Key] = true
	}
	return errors.Join(all...)
}

// parse reads a TOML text: its values, and the line of each key and list element. Keys are paths such as "domain[0].name".
func parse(name string, text []byte) (values map[string]any, lines map[string]int, err *Error) {
	// The decoder finds syntax errors and keys that are set twice; the parser below knows the lines.
	if err := toml.Unmarshal(text, &values); err != nil {
		e := &Error{File: name, Message: strings.TrimPrefix(err.Error(), "toml: ")}
		var d *toml.DecodeError
		if errors.As(err, &d) {
			e.Line, _ = d.Position()
		}
		return nil, nil, e
	}
	l := locator{lines: make(map[string]int), tables: make(map[string]int)}
	l.p.Reset(text)
	for l.p.NextExpression() {
		l.expression(l.p.Expression())
	}
	return values, l.lines, nil
}

// locator finds the lines of keys.
type locator struct {
	p      unstable.Parser
	lines  map[string]int
	tables map[string]int // how many [[tables]] of that name there were
	base   string         // the table that key-value pairs belong to
}

func (l *locator) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table, unstable.ArrayTable:
		path, line := "", 0
		for it := n.Key(); it.Next(); {
			path, line = extend(l.last(path), string(it.Node().Data)), l.line(it.Node())
		}
		if n.Kind == unstable.ArrayTable {
			l.tables[path]++
		}
		l.base = l.last(path)
		l.set(l.base, line)
	case unstable.KeyValue:
		l.pair(l.base, n)
	}
}

// last is the table that path means at this place of the file: of a [[table]] the one that began last (TOML 1.0, "Array of Tables").
func (l *locator) last(path string) string {
	if n := l.tables[path]; n > 0 {
		return fmt.Sprintf("%s[%d]", path, n-1)
	}
	return path
}

func (l *locator) pair(base string, n *unstable.Node) {
	line := 0
	for it := n.Key(); it.Next(); {
		base, line = extend(base, string(it.Node().Data)), l.line(it.Node())
		l.set(base, line)
	}
	l.value(base, n.Value(), line)
}

// value goes down into lists and inline tables; line is that of what is around it.
func (l *locator) value(path string, n *unstable.Node, line int) {
	switch n.Kind {
	case unstable.InlineTable:
		for it := n.Children(); it.Next(); {
			l.pair(path, it.Node())
		}
	case unstable.Array:
		i := 0
		for it := n.Children(); it.Next(); i++ {
			element := fmt.Sprintf("%s[%d]", path, i)
			if it.Node().Raw.Length > 0 {
				line = l.line(it.Node())
			}
			l.set(element, line)
			l.value(element, it.Node(), line)
		}
	}
}

func (l *locator) set(path string, line int) {
	if _, ok := l.lines[path]; !ok {
		l.lines[path] = line
	}
}

func (l *locator) line(n *unstable.Node) int { return l.p.Shape(n.Raw).Start.Line }

func extend(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
