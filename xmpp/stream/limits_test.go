package stream

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	streamerr "mellium.im/xmpp/stream"

	"balcony/xmpp"
)

// RFC 6120 §4.9.3.14: each limit is held exactly, in any chunking.
func TestLimits(t *testing.T) {
	l := Limits{Bytes: 400, Depth: 3, Attributes: 4, Children: 5}
	pad := func(before, after string, n int) string {
		return before + strings.Repeat("a", n-len(before)-len(after)) + after
	}
	for _, tt := range []struct{ limit, ok, bad string }{
		{"bytes in text", pad("<message><body>", "</body></message>", 400), pad("<message><body>", "</body></message>", 401)},
		{"bytes in a value", pad("<message id='", "'/>", 400), pad("<message id='", "'/>", 401)},
		{"bytes in a name", pad("<", "/>", 400), pad("<", "/>", 401)},
		{"bytes in CDATA", pad("<message><![CDATA[", "]]></message>", 400), pad("<message><![CDATA[", "]]></message>", 401)},
		{"bytes in an end tag", "<message></message" + strings.Repeat(" ", 400-19) + ">", "<message></message" + strings.Repeat(" ", 401-19) + ">"},
		{"bytes in a tag", "<message" + strings.Repeat(" ", 400-10) + "/>", "<message" + strings.Repeat(" ", 401-10) + "/>"},
		{"bytes of the stream's end", "</stream:stream" + strings.Repeat(" ", 400-16) + ">", "</stream:stream" + strings.Repeat(" ", 401-16) + ">"},
		{"depth", "<message><a><b/></a></message>", "<message><a><b><c/></b></a></message>"},
		{"depth of nonzas", "<a xmlns='urn:a'><a><b></b></a></a>", "<a xmlns='urn:a'><a><b><c></c></b></a></a>"},
		{"attributes", "<message><a b='' c='' d='' e=''/></message>", "<message><a b='' c='' d='' e='' f=''/></message>"},
		{"attributes of the stanza", "<message b='' c='' d='' xmlns:e='urn:e'><a b='' c='' d='' e=''/></message>", "<message b='' c='' d='' e='' xmlns:f='urn:f'/>"},
		{"children", "<message><a/><a/><a/><a/><a><b/><b/></a></message>", "<message><a/><a/><a/><a/><a/><a/></message>"},
		{"children of nonzas", "<a xmlns='urn:a'><a/><a/><a/><a/><a/></a>", "<a xmlns='urn:a'><a/><a/><a/><a/><a/><a/></a>"},
	} {
		t.Run(tt.limit, func(t *testing.T) {
			header := `<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`
			if got := decode(t, xmpp.NSClient, header+tt.ok, l); len(got) != 3 || got[2] != "more opened=true" {
				t.Errorf("within the limit: %q", got)
			}
			wantError(t, tt.bad, decode(t, xmpp.NSClient, header+tt.bad, l), streamerr.PolicyViolation, true)
		})
	}
	wantError(t, "header", decode(t, xmpp.NSClient, pad("<stream:stream xmlns='jabber:client' to='", "", 500), l), streamerr.PolicyViolation, false)

	// The bytes of one element do not count for the next, nor does whitespace.
	d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
	d.SetLimits(l)
	stanza := pad("<message><body>", "</body></message>", 400) + strings.Repeat(" ", 500)
	lines := feed(d, strings.Repeat(stanza, 10), func(int) int { return 77 })
	if len(lines) != 11 || lines[10] != "more opened=true" {
		t.Errorf("got %q", lines)
	}
}

func TestPrefixLimit(t *testing.T) {
	nest := func(n int) string {
		var b strings.Builder
		for i := range n {
			if i%8 == 0 {
				b.WriteString("<a")
			}
			fmt.Fprintf(&b, " xmlns:p%d='urn:p'", i)
			if i%8 == 7 || i == n-1 {
				b.WriteString(">")
			}
		}
		return "<message>" + b.String() + strings.Repeat("</a>", (n+7)/8) + "</message>"
	}
	if got := decodeBody(t, nest(maxPrefixes)); len(got) != 2 {
		t.Errorf("within the limit: %q", got)
	}
	wantError(t, "prefixes", decodeBody(t, nest(maxPrefixes+1)), streamerr.PolicyViolation, true)
	// Those of siblings do not add up.
	if got := decodeBody(t, "<message>"+strings.Repeat("<p:a xmlns:p='urn:p'/>", 200)+"</message>"); len(got) != 2 {
		t.Errorf("siblings: %q", got[len(got)-1])
	}
}

// What an unfinished element of each shape that makes a parser hold much more than it reads looks like, n bytes of it.
var unfinished = map[string]func(n int) string{
	"text":       func(n int) string { return "<message><body>" + strings.Repeat("a", n) },
	"CDATA":      func(n int) string { return "<message><![CDATA[" + strings.Repeat("]", n) },
	"brackets":   func(n int) string { return "<message>" + strings.Repeat("]", n) },
	"references": func(n int) string { return "<message>" + strings.Repeat("&#x41;", n/6) },
	"UTF-8":      func(n int) string { return "<message>" + strings.Repeat("\U0001f48b", n/4) },
	"value":      func(n int) string { return "<message id='" + strings.Repeat(">", n) },
	"quotes":     func(n int) string { return "<message id='" + strings.Repeat("\"", n) },
	"name":       func(n int) string { return "<" + strings.Repeat("a", n) },
	"spaces":     func(n int) string { return "<message" + strings.Repeat(" ", n) },
	"end tag":    func(n int) string { return "<message></message" + strings.Repeat(" ", n) },
	"long names": func(n int) string { return "<" + strings.Repeat("a", n/2) + "></" + strings.Repeat("a", n/2-8) },
	"children":   func(n int) string { return "<message>" + strings.Repeat("<a/>", min(n/4, 60)) },
	"elements":   func(n int) string { return "<message><x>" + strings.Repeat("<a/>", n/4) },
	"namespaces": func(n int) string { return "<message><x>" + strings.Repeat("<a xmlns='b'/>", n/14) },
	"cuts":       func(n int) string { return "<message><x>" + strings.Repeat("<a xmlns='jabber:client'/>", n/26) },
	"attributes": func(n int) string {
		var b strings.Builder
		for i := range 60 {
			fmt.Fprintf(&b, " a%d=''", i)
		}
		return "<message><x>" + strings.Repeat("<a"+b.String()+"/>", n/600)
	},
	"expanded names": func(n int) string {
		var b strings.Builder
		for i := range 15 {
			fmt.Fprintf(&b, " xmlns:p%d='urn:%d' p%d:a=''", i, i, i)
		}
		return "<message><x>" + strings.Repeat("<a"+b.String()+"/>", n/600)
	},
	"prefixes": func(n int) string {
		var b strings.Builder
		for i := range 60 {
			fmt.Fprintf(&b, " xmlns:p%d='u'", i)
		}
		return "<message" + b.String() + "><x>" + strings.Repeat("<p0:a/>", n/7)
	},
	"cooked namespaces": func(n int) string {
		var b strings.Builder
		for i := range 30 {
			fmt.Fprintf(&b, " xmlns:p%d='&#97;%d'", i, i)
		}
		return "<message><x>" + strings.Repeat("<a"+b.String()+"/>", n/600)
	},
	"depth": func(n int) string { return strings.Repeat("<a>", min(n/3, 60)) },
}

// The cost of an element is linear in its size, also when it comes byte by byte: 256 KiB of each shape within seconds, where a
// quadratic scanner would need minutes (security.md row 8, 14).
func TestDripIsLinear(t *testing.T) {
	for shape, make := range unfinished {
		t.Run(shape, func(t *testing.T) {
			in := []byte(make(200 << 10))
			d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
			start := time.Now()
			for i := range in {
				d.Feed(in[i : i+1])
				if ev, err := d.Next(); err != ErrMore {
					t.Fatalf("byte %d: %v, %v", i, ev, err)
				}
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%d bytes took %v", len(in), took)
			}
		})
	}
}

// No peer that has not authenticated makes a decoder hold more than 64 KiB, of which the rest of the connection needs its part; what is
// measured is the heap, not the input (security.md row 4).
func TestUnauthenticatedHeap(t *testing.T) {
	const n, most = 64, 32 << 10
	chunks := map[string]int{"dripping": 100, "at once": 4096}
	for shape, make := range unfinished {
		for how, size := range chunks {
			t.Run(shape+" "+how, func(t *testing.T) {
				in := []byte(make(9000))
				var decoders [n]*Decoder
				before := heap()
				for i := range decoders {
					d := open(t, xmpp.NSClient, clientHeader, BeforeAuth)
					for rest := in; len(rest) > 0; {
						k := min(size, len(rest))
						d.Feed(rest[:k])
						rest = rest[k:]
						if ev, err := d.Next(); err != ErrMore {
							t.Fatal(ev, err)
						}
					}
					decoders[i] = d
				}
				if each := (heap() - before) / n; each > most {
					t.Errorf("%d bytes each", each)
				}
				runtime.KeepAlive(&decoders)
			})
		}
	}
}

// A stream on which nothing happens holds no buffer.
func TestIdleHeap(t *testing.T) {
	const n, most = 512, 1200
	var decoders [n]*Decoder
	before := heap()
	for i := range decoders {
		d := open(t, xmpp.NSClient, clientHeader, BeforeAuth)
		d.Feed([]byte(benchStanzas[0].xml + strings.Repeat(" ", 100)))
		if ev, err := d.Next(); err != nil {
			t.Fatal(ev, err)
		}
		if _, err := d.Next(); err != ErrMore {
			t.Fatal(err)
		}
		d.Feed([]byte(" \n"))
		if d.s != nil {
			t.Fatal("a buffer is kept")
		}
		decoders[i] = d
	}
	if each := (heap() - before) / n; each > most {
		t.Errorf("%d bytes each", each)
	}
	runtime.KeepAlive(&decoders)
}

// heap is the number of bytes of live objects.
func heap() int {
	runtime.GC() // twice: what was in a sync.Pool goes with the second
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Large input leaves the shared buffers as they were.
func TestBuffersShrink(t *testing.T) {
	d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
	for _, size := range []int{100, 5_000, 20_000, 100_000, 250_000, 100} {
		body := strings.Repeat("a", size)
		in := "<message><body>" + body + "</body></message><iq"
		lines := feed(d, in, func(int) int { return 16 << 10 })
		if len(lines) != 2 || !strings.Contains(lines[0], "<body>"+body+"</body>") {
			t.Fatalf("%d bytes: %d lines", size, len(lines))
		}
		if c := cap(d.s.buf); c > smallBuffer {
			t.Errorf("%d bytes hold a buffer of %d", len("<iq"), c)
		}
		if lines := feed(d, "/>", whole); len(lines) != 2 {
			t.Fatalf("got %q", lines)
		}
	}

	// A large element behind a large one stays where it is; lists that grew are not kept.
	d.SetLimits(Limits{Bytes: 1 << 20, Depth: 10, Attributes: 1000, Children: 1000})
	var attrs strings.Builder
	for i := range 300 {
		fmt.Fprintf(&attrs, " a%d=''", i)
	}
	large := "<message" + attrs.String() + ">" + strings.Repeat("<a xmlns='jabber:client'>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</a>", 900) + "</message>"
	lines := feed(d, large+large+large, func(int) int { return len(large)*2 - 30000 })
	if len(lines) != 4 || lines[0] != lines[1] || lines[0] != lines[2] {
		t.Fatalf("got %d lines", len(lines))
	}
	for range 100 {
		s := scanners.Get().(*scanner)
		if cap(s.attrs) > keepable || cap(s.kids) > keepable || cap(s.cuts) > keepable || cap(s.buf) > smallBuffer || s.large != nil {
			t.Fatalf("kept: %d %d %d %d", cap(s.attrs), cap(s.kids), cap(s.cuts), cap(s.buf))
		}
	}
}

// RFC 6120 §4.6.1: keepalives cost nothing; nor does scanning.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop things")
	}
	d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
	space := []byte(" \r\n")
	if n := testing.AllocsPerRun(1000, func() { d.Feed(space); _, _ = d.Next() }); n != 0 {
		t.Errorf("a keepalive allocates %v times", n)
	}
	for _, s := range benchStanzas {
		in := []byte(s.xml)
		for _, size := range []int{len(in), 50, 1} {
			n := testing.AllocsPerRun(1000, func() {
				for rest := in; len(rest) > 0; {
					k := min(size, len(rest))
					d.Feed(rest[:k])
					rest = rest[k:]
					if _, f := scanOnly(d); f != more {
						t.Fatal(f)
					}
				}
			})
			if n != 0 {
				t.Errorf("%s in pieces of %d: %v allocations", s.name, size, n)
			}
		}
	}
}

// The Stanza, its bytes, its index and its id.
func TestStanzaAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop things")
	}
	d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
	for _, s := range benchStanzas {
		in := []byte(s.xml)
		n := testing.AllocsPerRun(1000, func() {
			d.Feed(in)
			if _, err := d.Next(); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Next(); err != ErrMore {
				t.Fatal(err)
			}
		})
		if n > 4 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}
