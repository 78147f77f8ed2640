package xmpptest

import (
	"encoding/xml"
	"fmt"
	"html"
	"sort"
	"strings"

	"balcony/xmpp"
)

// parse reads pieces of XML as they stand in a stream of jabber:client: elements one after the other.
func parse(text string) ([]*xmpp.Element, error) {
	d := xml.NewDecoder(strings.NewReader("<stream:stream xmlns='jabber:client' xmlns:stream='" + xmpp.NSStream + "'>" + text + "</stream:stream>"))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var all []*xmpp.Element
	for {
		e, err := xmpp.ReadElement(d)
		if err != nil {
			if strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "syntax") {
				return all, nil
			}
			return nil, err
		}
		all = append(all, e)
	}
}

// match compares XML as XML: the order of attributes, prefixes and white space between elements do not count. In want, {any} stands for any
// value and {name} for one that is kept in vars and is the same from then on. The error says where they differ.
func match(want, got *xmpp.Element, vars map[string]string) error {
	if want.Space != got.Space || want.Local != got.Local {
		return fmt.Errorf("element {%s}%s, want {%s}%s", got.Space, got.Local, want.Space, want.Local)
	}
	at := want.Local
	wa, ga := attributes(want), attributes(got)
	for name, w := range wa {
		g, ok := ga[name]
		if !ok {
			return fmt.Errorf("%s has no attribute %s", at, name)
		}
		if err := value(w, g, vars); err != nil {
			return fmt.Errorf("%s/@%s: %w", at, name, err)
		}
	}
	for name := range ga {
		if _, ok := wa[name]; !ok {
			return fmt.Errorf("%s has an attribute %s=%q", at, name, ga[name])
		}
	}
	wc, wt := content(want)
	gc, gt := content(got)
	if err := value(wt, gt, vars); err != nil {
		return fmt.Errorf("%s: text: %w", at, err)
	}
	if len(wc) != len(gc) {
		return fmt.Errorf("%s has %d children, want %d", at, len(gc), len(wc))
	}
	for i := range wc {
		if err := match(wc[i], gc[i], vars); err != nil {
			return fmt.Errorf("%s/%w", at, err)
		}
	}
	return nil
}

func value(want, got string, vars map[string]string) error {
	if strings.HasPrefix(want, "{") && strings.HasSuffix(want, "}") {
		name := want[1 : len(want)-1]
		if name == "any" {
			return nil
		}
		if known, ok := vars[name]; ok {
			want = known
		} else {
			vars[name] = got
			return nil
		}
	}
	if want != got {
		return fmt.Errorf("%q, want %q", got, want)
	}
	return nil
}

func attributes(e *xmpp.Element) map[string]string {
	m := make(map[string]string, len(e.Attrs))
	for _, a := range e.Attrs {
		if !strings.HasPrefix(a.Name, "xmlns:") && !strings.Contains(a.Name, ":") || strings.HasPrefix(a.Name, "xml:") {
			m[a.Name] = a.Value
		}
	}
	return m
}

// content is the element's children and its text; white space beside children does not count.
func content(e *xmpp.Element) (children []*xmpp.Element, text string) {
	text = e.Text
	for _, c := range e.Children {
		if c.Local == "" {
			text += html.UnescapeString(string(c.Raw))
			continue
		}
		children = append(children, c)
	}
	if len(children) > 0 {
		text = strings.TrimSpace(text)
	}
	return children, text
}

// fill replaces the {name} of vars in text that is to be sent.
func fill(text string, vars map[string]string) string {
	names := make([]string, 0, len(vars))
	for n := range vars {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		text = strings.ReplaceAll(text, "{"+n+"}", string(xmpp.AppendEscaped(nil, vars[n])))
	}
	return text
}
