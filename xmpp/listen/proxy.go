package listen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// Proxies are the addresses that carry the connections of others.
type Proxies struct {
	// From are the addresses: each connection from there begins with a header of the PROXY protocol, and no other one does.
	From []netip.Prefix
	// Timeout is how long the header may take.
	Timeout time.Duration
}

// Contains reports whether one of the networks in list contains a.
func Contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// SetProxies changes them for connections that are accepted from now on; at first there are none.
func (s *Listeners) SetProxies(p Proxies) { s.proxies.Store(&p) }

// trusts reports whether a is the address of a proxy.
func (s *Listeners) trusts(a netip.Addr) bool {
	p := s.proxies.Load()
	return p != nil && Contains(p.From, a)
}

// unwrap gives c to take once its proxy has said whose it is. PROXY protocol §2: nothing is processed before a whole and valid header, and whether
// there is one is not guessed.
func (s *Listeners) unwrap(c *net.TCPConn, proxy netip.AddrPort, take func(c *net.TCPConn, remote netip.AddrPort)) {
	err := c.SetReadDeadline(time.Now().Add(s.proxies.Load().Timeout))
	stop := context.AfterFunc(s.ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	remote := proxy
	if err == nil {
		remote, err = source(c, proxy)
	}
	if !stop() && err == nil {
		err = s.ctx.Err()
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if err == nil {
		take(c, remote)
		return
	}
	_ = c.Close()
	if !errors.Is(err, io.EOF) && s.ctx.Err() == nil { // io.EOF: it has only looked whether somebody is there
		s.log.Warn("connection of a proxy refused", "proxy", proxy.String(), "err", err)
	}
}

// source reads the header and not a byte behind it, and returns the client's address; that of the proxy where the connection is the proxy's own, or
// the client has none.
func source(r io.Reader, proxy netip.AddrPort) (netip.AddrPort, error) {
	b, err := header(r)
	if err != nil {
		return proxy, fmt.Errorf("read PROXY header: %w", err)
	}
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return proxy, fmt.Errorf("parse PROXY header: %w", err)
	}
	// §2.1 UNKNOWN, §2.2 LOCAL, and combinations that are none of ours: the real connection's address.
	if from, _, ok := h.TCPAddrs(); ok && h.Command.IsProxy() {
		return Address(from), nil
	}
	return proxy, nil
}

// Of the PROXY protocol.
const (
	v1Prefix = "PROXY "                                           // §2.1
	v2Prefix = "\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A" // §2.2
	v1Least  = len("PROXY UNKNOWN\r\n")                           // §2.1
	v1Most   = 107                                                // §2.1
	v2Fixed  = len(v2Prefix) + 4                                  // §2.2: version and command, family, length
	v2Most   = 4096                                               // chosen: the addresses and a client's certificate
)

var (
	errNone  = errors.New("no header")
	errLong  = errors.New("the header is too long")
	errShort = errors.New("the header ends within")
)

// header reads what the PROXY protocol says is a header's extent, and not a byte more. io.EOF: there was nothing at all.
func header(r io.Reader) (b []byte, err error) {
	more := func(n int) error {
		had := len(b)
		b = append(b, make([]byte, n)...)
		_, err := io.ReadFull(r, b[had:])
		if errors.Is(err, io.ErrUnexpectedEOF) || had > 0 && errors.Is(err, io.EOF) {
			return errShort
		}
		return err
	}
	if err := more(len(v1Prefix)); err != nil {
		return nil, err
	}
	switch {
	case string(b) == v1Prefix:
		// Where the line ends is known only when its end is there.
		err = more(v1Least - len(b))
		for err == nil && b[len(b)-1] != '\n' {
			if len(b) == v1Most {
				return nil, errLong
			}
			err = more(1)
		}
	case string(b) == v2Prefix[:len(b)]:
		if err := more(v2Fixed - len(b)); err != nil {
			return nil, err
		}
		if string(b[:len(v2Prefix)]) != v2Prefix {
			return nil, errNone
		}
		n := int(binary.BigEndian.Uint16(b[v2Fixed-2:]))
		if n > v2Most {
			return nil, errLong
		}
		err = more(n)
	default:
		return nil, errNone
	}
	return b, err
}
