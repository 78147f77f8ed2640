package stream

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	streamerr "mellium.im/xmpp/stream"

	"balcony/xmpp"
)

// show is an event as a line that can be compared.
func show(ev Event) string {
	switch ev.Kind {
	case Open:
		return fmt.Sprintf("open %+v", *ev.Header)
	case Stanzas:
		line := "stanza " + ev.Stanza.String()
		for _, sp := range ev.Stanza.Spans() {
			line += fmt.Sprintf(" [%q %s %d:%d]", sp.Space, sp.Local, sp.Start, sp.End)
		}
		if ev.BadTo {
			line += fmt.Sprintf(" bad to %q", ev.RawTo)
		}
		if ev.BadFrom {
			line += fmt.Sprintf(" bad from %q", ev.RawFrom)
		}
		return line
	case Nonzas:
		return fmt.Sprintf("element {%s}%s %s", ev.Element.Space, ev.Element.Local, ev.Element.XML())
	case Close:
		return "close"
	}
	return fmt.Sprintf("unknown event %d", ev.Kind)
}

// feed gives in to d in pieces that cut returns the length of, and returns the events and at the end the error.
func feed(d *Decoder, in string, cut func(rest int) int) (lines []string) {
	for len(in) > 0 {
		n := max(1, min(cut(len(in)), len(in)))
		d.Feed([]byte(in[:n]))
		in = in[n:]
		for {
			ev, err := d.Next()
			if errors.Is(err, ErrMore) {
				break
			}
			if err != nil {
				return append(lines, fmt.Sprintf("error %v opened=%v", err, d.Opened()))
			}
			lines = append(lines, show(ev))
		}
	}
	return append(lines, fmt.Sprintf("more opened=%v", d.Opened()))
}

func whole(rest int) int { return rest }
func single(int) int     { return 1 }

// decode runs in through a decoder, whole and byte by byte, and requires both to give the same.
func decode(t testing.TB, content, in string, l Limits) []string {
	t.Helper()
	all := feed(NewDecoder(content, l), in, whole)
	drip := feed(NewDecoder(content, l), in, single)
	if a, b := strings.Join(all, "\n"), strings.Join(drip, "\n"); a != b {
		t.Errorf("chunks matter for %q:\nwhole:\n%s\nbyte by byte:\n%s", in, a, b)
	}
	return all
}

// decodeBody is decode for what follows an ordinary client's header.
func decodeBody(t testing.TB, body string) []string {
	t.Helper()
	lines := decode(t, xmpp.NSClient, clientHeader+body, DefaultLimits())
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "open") {
		t.Fatalf("header failed: %q", lines)
	}
	return lines[1:]
}

// open returns a decoder that has read header.
func open(t testing.TB, content, header string, l Limits) *Decoder {
	t.Helper()
	d := NewDecoder(content, l)
	d.Feed([]byte(header))
	if ev, err := d.Next(); err != nil || ev.Kind != Open {
		t.Fatalf("header: %v, %v", ev, err)
	}
	return d
}

// wantError fails unless the last line is that stream error.
func wantError(t testing.TB, in string, lines []string, want streamerr.Error, opened bool) {
	t.Helper()
	last := lines[len(lines)-1]
	if last != fmt.Sprintf("error %s opened=%v", want.Err, opened) {
		t.Errorf("%q:\n got  %s\n want %s opened=%v", in, strings.Join(lines, "\n      "), want.Err, opened)
	}
}
