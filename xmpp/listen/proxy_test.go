package listen

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	v2         = "\r\n\r\n\x00\r\nQUIT\n"
	v2IPv4     = v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66"
	v2Local    = v2 + "\x20\x00\x00\x00"
	v2Addition = v2 + "\x21\x11\x00\x13\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66\x05\x00\x04test" // §2.2.5: a unique id
)

var own = netip.MustParseAddrPort("198.51.100.1:4000")

// sources are headers and the address that they give; empty for none.
var sources = []struct{ name, header, want string }{
	{"version 1, IPv4", "PROXY TCP4 192.0.2.1 192.0.2.2 40000 5222\r\n", "192.0.2.1:40000"},
	{"version 1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 40000 5222\r\n", "[2001:db8::1]:40000"},
	{"version 1, the longest", "PROXY TCP6 2001:0db8:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
	{"version 1, mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 40000 5222\r\n", "192.0.2.1:40000"},
	{"§2.1 UNKNOWN", "PROXY UNKNOWN\r\n", own.String()},
	{"§2.1 UNKNOWN, the longest", "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", own.String()},
	{"version 2, IPv4", v2IPv4, "192.0.2.1:40000"},
	{"version 2, IPv6", v2 + "\x21\x21\x00\x24 \x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01 \x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x9c\x40\x14\x66", "[2001:db8::1]:40000"},
	{"version 2, additions", v2Addition, "192.0.2.1:40000"},
	{"version 2, the longest", v2 + "\x21\x11\x10\x00\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66\x04\x0f\xf1" + strings.Repeat("x", 4096-12-3), "192.0.2.1:40000"},
	{"§2.2 LOCAL", v2Local, own.String()},
	{"§2.2 LOCAL with an address, which is ignored", v2 + "\x20\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66", own.String()},
	{"§2.2 UNIX stream", v2 + "\x21\x31\x00\xd8" + strings.Repeat("/", 216), own.String()},
	{"§2.2 UDP", v2 + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66", own.String()},

	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""},
	{"a stream", "<?xml version='1.0'?><stream:stream>", ""},
	{"nearly version 1", "PROXYTCP4 192.0.2.1 192.0.2.2 40000 5222\r\n", ""},
	{"in lower case", "proxy TCP4 192.0.2.1 192.0.2.2 40000 5222\r\n", ""},
	{"an address of the other family", "PROXY TCP4 2001:db8::1 2001:db8::2 40000 5222\r\n", ""},
	{"no address", "PROXY TCP4 example.org 192.0.2.2 40000 5222\r\n", ""},
	{"an address with a zone", "PROXY TCP6 fe80::1%eth0 fe80::2 40000 5222\r\n", ""},
	{"heading zeroes", "PROXY TCP4 192.0.2.1 192.0.2.2 040000 5222\r\n", ""},
	{"no port", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 5222\r\n", ""},
	{"two spaces", "PROXY TCP4  192.0.2.1 192.0.2.2 40000 5222\r\n", ""},
	{"too many words", "PROXY TCP4 192.0.2.1 192.0.2.2 40000 5222 1\r\n", ""},
	{"no CR", "PROXY TCP4 192.0.2.1 192.0.2.2 40000 5222\n", ""},
	{"no end", "PROXY TCP4 192.0.2.1 192.0.2.2 40000 5222", ""},
	{"short", "PROXY \r\n<stream", ""},
	{"too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", ""},
	{"another signature", "\r\n\r\n\x00\r\nQUIC\n\x20\x00\x00\x00", ""},
	{"another version", v2 + "\x11\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66", ""},
	{"another command", v2 + "\x22\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66", ""},
	{"§2.2 AF_UNSPEC on behalf of somebody", v2 + "\x21\x00\x00\x00", ""}, // a receiver is free to reject it
	{"another family", v2 + "\x21\x41\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66", ""},
	{"an address that is too short", v2 + "\x21\x11\x00\x0b\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14", ""},
	{"cut off", v2IPv4[:len(v2IPv4)-1], ""},
	{"version 2, too long", v2 + "\x21\x11\x10\x01\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66\x04\x0f\xf2" + strings.Repeat("x", 4097-12-3), ""},
}

// PROXY protocol §2.1, §2.2: what headers say, however they arrive, and nothing behind them is read.
func TestSource(t *testing.T) {
	const behind = "<?xml version='1.0'?>"
	for _, tt := range sources {
		for name, chunks := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with the end": iotest.DataErrReader} {
			text := tt.header
			if tt.want != "" {
				text += behind
			}
			rest := strings.NewReader(text)
			got, err := source(chunks(rest), own)
			if tt.want == "" {
				if err == nil {
					t.Errorf("%s, %s: %s", tt.name, name, got)
				}
				continue
			}
			left, _ := io.ReadAll(rest)
			if name == "with the end" { // that one reads ahead
				left = []byte(behind)
			}
			if err != nil || got.String() != tt.want || string(left) != behind {
				t.Errorf("%s, %s: %s, %v, and %q is left; want %s", tt.name, name, got, err, left, tt.want)
			}
		}
	}
	if _, err := source(strings.NewReader(""), own); !errors.Is(err, io.EOF) {
		t.Errorf("nothing at all: %v", err)
	}
	if _, err := source(strings.NewReader("P"), own); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("one byte: %v", err)
	}
}

// FuzzSource compares with the library, which reads ahead: the same address, and the same bytes behind it.
func FuzzSource(f *testing.F) {
	for _, tt := range sources {
		f.Add([]byte(tt.header + "rest"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := source(r, own)
		if read := len(b) - r.Len(); read > v2Fixed+v2Most {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			return
		}
		buffered := bufio.NewReaderSize(bytes.NewReader(b), 8<<10)
		h, err := proxyproto.Read(buffered)
		if err != nil {
			t.Fatalf("%q is %s, and for the library %v", b, got, err)
		}
		want := own
		if from, ok := h.SourceAddr.(*net.TCPAddr); ok && h.Command.IsProxy() {
			want = Address(from)
		}
		left, _ := io.ReadAll(r)
		theirs, _ := io.ReadAll(buffered)
		if got != want || !bytes.Equal(left, theirs) {
			t.Fatalf("%q: %s and %q, want %s and %q", b, got, left, want, theirs)
		}
	})
}

// behind serves a loopback listener whose proxies are the given addresses. Its clients are told the address that they are taken for, and then
// what they send.
func behind(t *testing.T, timeout time.Duration, from ...string) (*Listeners, func(local string) *net.TCPConn) {
	t.Helper()
	s, l := New(slog.New(slog.DiscardHandler)), loopback(t)
	p := Proxies{Timeout: timeout}
	for _, a := range from {
		p.From = append(p.From, netip.MustParsePrefix(a))
	}
	s.SetProxies(p)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Serve(l, func(c *net.TCPConn, remote netip.AddrPort) {
			go func() {
				_, _ = io.WriteString(c, remote.Addr().String()+"|")
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		})
	}()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	return s, func(local string) *net.TCPConn {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}).Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		return c.(*net.TCPConn)
	}
}

// echo is what comes back for text, up to the end.
func echo(t *testing.T, c *net.TCPConn, text string) string {
	t.Helper()
	_, _ = io.WriteString(c, text)
	_ = c.CloseWrite()
	b, _ := io.ReadAll(c)
	return string(b)
}

// Only proxies say whose a connection is, and they must.
func TestProxies(t *testing.T) {
	s, dial := behind(t, time.Minute, "127.0.0.2/32")
	for _, tt := range []struct{ name, from, say, want string }{
		{"a proxy", "127.0.0.2", v2IPv4 + "hello", "192.0.2.1|hello"},
		{"the proxy itself", "127.0.0.2", v2Local + "hello", "127.0.0.2|hello"},
		{"a proxy that says nothing", "127.0.0.2", "<stream:stream>", ""},
		{"a proxy that goes away", "127.0.0.2", "", ""},
		{"a client", "127.0.0.1", "hello", "127.0.0.1|hello"},
		{"a client that claims another address", "127.0.0.1", v2IPv4 + "hello", "127.0.0.1|" + v2IPv4 + "hello"},
	} {
		if got := echo(t, dial(tt.from), tt.say); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	s.SetProxies(Proxies{})
	if got := echo(t, dial("127.0.0.2"), "hello"); got != "127.0.0.2|hello" {
		t.Errorf("of a proxy no more: %q", got)
	}
}

// A proxy has no limit: what it carries is counted by itself.
func TestProxiesAreNotCounted(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	proxy, client := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	s.SetProxies(Proxies{From: []netip.Prefix{netip.PrefixFrom(proxy, 32)}})
	for range 2 {
		if !s.Take(proxy, 1) {
			t.Error("of a proxy any number")
		}
	}
	if !s.Take(client, 1) || s.Take(client, 1) {
		t.Error("of a client one connection")
	}
	s.Give(client)
	if !s.Take(client, 1) {
		t.Error("it has gone")
	}
}

// The header has a deadline that dripping does not extend, and the stream behind it has none.
func TestHeaderTimeout(t *testing.T) {
	_, dial := behind(t, 300*time.Millisecond, "127.0.0.2/32")
	var in *net.TCPConn
	for served := ""; served != "192.0.2.1|"; { // a busy machine may be late
		in = dial("127.0.0.2")
		_, _ = io.WriteString(in, v2IPv4)
		served, _ = bufio.NewReader(in).ReadString('|')
	}
	slow := dial("127.0.0.2")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, b := range []byte(v2 + "\x21\x11\x00\x4b\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x14\x66\x04\x00\x3c" + strings.Repeat("x", 60)) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if b, _ := io.ReadAll(slow); len(b) > 0 {
		t.Errorf("served after its time: %q", b)
	}
	_ = slow.Close()
	<-done
	if got := echo(t, in, "hello"); got != "hello" { // it has been silent for longer than that
		t.Errorf("%q", got)
	}
}

// Close ends those that have not said whose they are.
func TestCloseWhileAHeaderIsAwaited(t *testing.T) {
	s, dial := behind(t, time.Hour, "127.0.0.2/32")
	c := dial("127.0.0.2")
	_, _ = io.WriteString(c, v2IPv4[:20])
	_ = s.Close()
	if b, err := io.ReadAll(c); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
}
