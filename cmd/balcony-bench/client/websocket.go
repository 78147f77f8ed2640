package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// WebSocketPath is where every server has its WebSocket.
const WebSocketPath = "/xmpp-websocket"

// overWebSocket is a TLS connection on which every write is one message (RFC 7395 §3.3.3), and reads give the text of messages. The mask is zero:
// the server has the same work with it, and the driver none.
type overWebSocket struct {
	*tls.Conn
	r    *bufio.Reader
	left int // of the message that is being read
	buf  []byte
}

// dialWebSocket connects and does the handshake of RFC 6455 §4.1.
func (d *Dialer) dialWebSocket(ctx context.Context) (*overWebSocket, error) {
	var nd net.Dialer
	raw, err := nd.DialContext(ctx, "tcp", d.WebSocket)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(loginTimeout))
	cfg := d.TLS.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\nOrigin: https://%s\r\n\r\n", WebSocketPath, d.Domain, d.Domain)
	o := &overWebSocket{Conn: conn, r: bufio.NewReaderSize(conn, 4096)}
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(o.r, nil); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			err = fmt.Errorf("WebSocket handshake: %s", resp.Status)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return o, nil
}

func (o *overWebSocket) Write(p []byte) (int, error) {
	if err := o.frame(1, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// frame writes a masked frame (RFC 6455 §5.2).
func (o *overWebSocket) frame(opcode byte, p []byte) error {
	b := append(o.buf[:0], 0x80|opcode)
	if len(p) < 126 {
		b = append(b, 0x80|byte(len(p)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(p)))
	}
	b = append(append(b, 0, 0, 0, 0), p...)
	o.buf = b
	_, err := o.Conn.Write(b)
	return err
}

func (o *overWebSocket) Read(p []byte) (int, error) {
	for o.left == 0 {
		var h [4]byte
		if _, err := io.ReadFull(o.r, h[:2]); err != nil {
			return 0, err
		}
		n := int(h[1]) // the server does not mask
		switch {
		case n == 126:
			if _, err := io.ReadFull(o.r, h[2:]); err != nil {
				return 0, err
			}
			n = int(binary.BigEndian.Uint16(h[2:]))
		case n > 126:
			return 0, errors.New("a frame that is masked or larger than 64 KiB")
		}
		switch opcode := h[0] & 0x0F; {
		case opcode == 8:
			return 0, io.EOF
		case opcode >= 9:
			control := make([]byte, n)
			if _, err := io.ReadFull(o.r, control); err != nil {
				return 0, err
			}
			if opcode == 9 {
				if err := o.frame(10, control); err != nil {
					return 0, err
				}
			}
		default:
			o.left = n
		}
	}
	n, err := o.r.Read(p[:min(len(p), o.left)])
	o.left -= n
	return n, err
}
