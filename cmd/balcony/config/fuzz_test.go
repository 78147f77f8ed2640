package config

import (
	"errors"
	"strings"
	"testing"
)

// FuzzRead: no file makes reading panic, and what is wrong is always said with a line of the file.
func FuzzRead(f *testing.F) {
	f.Add(full)
	f.Add("[[domain]]\n[domain.contact]\nabuse = [[\"x\"], {a = 1}, 2020-01-01]\n")
	f.Add("a.\"b.c\".d = 1\n[listen]\nc2s = [\n1,\n{x = [1]}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := read("b.toml", []byte(text))
		if err == nil {
			if err := c.Print(new(strings.Builder)); err != nil {
				t.Error(err)
			}
			return
		}
		all := []error{err}
		if j, ok := err.(interface{ Unwrap() []error }); ok {
			all = j.Unwrap()
		}
		for _, err := range all {
			var e *Error
			if !errors.As(err, &e) || e.Line < 0 || e.Line > strings.Count(text, "\n")+1 {
				t.Errorf("%#v", err)
			}
		}
	})
}
