//go:build !race

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// memory is what the program holds for its own data and stacks, garbage included.
func (p *process) memory() (bytes float64) {
	p.t.Helper()
	answer, err := http.Get("http://" + p.addrs["http"] + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name == "go_memstats_heap_inuse_bytes" || name == "go_memstats_stack_inuse_bytes" {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			bytes += n
		}
	}
	return bytes
}

// held opens n peers and says what the server holds for each: the least of a few readings on the way, as it is the collector's time that decides how
// much garbage is in one.
func (p *process) held(before float64, n int, open func()) (bytes float64) {
	p.t.Helper()
	bytes = math.Inf(1)
	for i := range n {
		if open(); i >= n/2 && i%(n/10) == n/10-1 {
			bytes = min(bytes, (p.memory()-before)/float64(i+1))
		}
	}
	p.t.Logf("%.1f KiB for each", bytes/1024)
	return bytes
}

// A peer that has not authenticated makes the server hold 64 KiB at most, TLS and garbage included, whatever it sends within the limits: here
// nearly the longest element, with as many attributes as it may have, that never ends.
func TestStrangersCostLittleMemory(t *testing.T) {
	const strangers, most = 400, 64 << 10
	p := start(t, configure(t, ""))
	open := func() *client {
		c := p.dial("localhost")
		c.say("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>", "</stream:features>")
		return c
	}
	open() // what is made once
	before := p.memory()
	hostile := "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
	for i := range 14 {
		hostile += " a" + strconv.Itoa(i) + "='" + strings.Repeat("x", 300) + "'"
	}
	hostile += ">" + strings.Repeat("<a b='c'>", 10) + strings.Repeat("y", 5000)
	var all []*client
	held := p.held(before, strangers, func() {
		c := open()
		if _, err := io.WriteString(c, hostile); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	})
	if held > most {
		t.Errorf("a stranger makes the server hold %.0f bytes", held)
	}
	for i, c := range all { // they are all still there
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || !strings.Contains(err.Error(), "timeout") {
			t.Fatalf("stranger %d: %d bytes, %v", i, n, err)
		}
	}
}

// The same for HTTP. A connection of HTTP/2 has many requests: as many bodies as it may have on their way, which never end, more of them than are
// read, with headers that are nearly as long as they may be, and one frame of the largest size that never ends.
func TestStrangersOverHTTPCostLittleMemory(t *testing.T) {
	p := start(t, configure(t, ""))
	dial := func(protocol string) *tls.Conn {
		c, err := tls.Dial("tcp", p.addrs["https"], &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{protocol}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, tt := range []struct {
		name string
		open func() net.Conn
		most float64 // bytes
	}{
		{"WebSocket", func() net.Conn {
			c := dial("http/1.1")
			_, err := io.WriteString(c, "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n")
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v %v", resp, err)
			}
			// RFC 6455 §5.2: a text message of 9,900 bytes that does not end, with a mask of zero.
			if _, err := c.Write(append([]byte{0x81, 0x80 | 126, 9900 >> 8, 9900 & 0xFF, 0, 0, 0, 0}, "<auth>"+strings.Repeat("y", 9000)...)); err != nil {
				t.Fatal(err)
			}
			return c
		}, 64 << 10},
		{"HTTP/2", func() net.Conn {
			c := dial("h2")
			f := http2.NewFramer(c, c)
			_, err := io.WriteString(c, http2.ClientPreface)
			if err = errors.Join(err, f.WriteSettings()); err != nil {
				t.Fatal(err)
			}
			var header bytes.Buffer
			for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/http-bind"}, {"x", strings.Repeat("~", 12<<10)}} {
				if err := hpack.NewEncoder(&header).WriteField(hpack.HeaderField{Name: h[0], Value: h[1], Sensitive: true}); err != nil {
					t.Fatal(err)
				}
			}
			const streams, body = 32, 6000
			for i := range streams {
				id := uint32(2*i + 1)
				err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header.Bytes(), EndHeaders: true})
				if err = errors.Join(err, f.WriteData(id, false, bytes.Repeat([]byte("y"), body/streams))); err != nil {
					t.Fatal(err)
				}
			}
			for refused, acked := 0, false; refused < streams-2 || !acked; { // those beyond two
				fr, err := f.ReadFrame()
				if err != nil {
					t.Fatalf("after %d streams were refused: %v", refused, err)
				}
				switch fr := fr.(type) {
				case *http2.SettingsFrame:
					if fr.IsAck() {
						acked = true
						break
					}
					for id, most := range map[http2.SettingID]uint32{http2.SettingMaxFrameSize: 16 << 10, http2.SettingInitialWindowSize: 256 << 10, http2.SettingMaxConcurrentStreams: streams} {
						if v, ok := fr.Value(id); ok && v > most {
							t.Errorf("%v is %d, more than %d", id, v, most)
						}
					}
					err = f.WriteSettingsAck()
				case *http2.RSTStreamFrame:
					refused++
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := f.WriteRawFrame(http2.FrameData, 0, 1, bytes.Repeat([]byte("y"), 1000)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(append([]byte{0, 0x40, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 1000)...)); err != nil { // RFC 9113 §4.1: 16,384 bytes of DATA
				t.Fatal(err)
			}
			return c
		}, 512 << 10}, // half of it is garbage: the headers of those that were refused
	} {
		t.Run(tt.name, func(t *testing.T) {
			const strangers = 100
			tt.open() // what is made once
			before := p.memory()
			var all []net.Conn
			held := p.held(before, strangers, func() { all = append(all, tt.open()) })
			if held > tt.most {
				t.Errorf("a stranger makes the server hold %.0f bytes", held)
			}
			for i, c := range all { // they are all still there
				_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				for {
					if _, err := c.Read(make([]byte, 4096)); err != nil {
						if !strings.Contains(err.Error(), "timeout") {
							t.Fatalf("stranger %d: %v", i, err)
						}
						break
					}
				}
				_ = c.Close()
			}
		})
	}
}
