package s2stest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Cable is a TCP proxy whose connections can be cut, which loses what is under way.
type Cable struct {
	l  net.Listener
	wg sync.WaitGroup

	// From is the address that it connects from, "" for any, and Says what it sends first, as a proxy does; before the first connection.
	From, Says string

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
	down  bool       // guarded by mu: nothing gets through
	to    string     // guarded by mu
}

// Unplug cuts all connections and lets no new one through until Plug.
func (c *Cable) Unplug() {
	c.mu.Lock()
	c.down = true
	c.mu.Unlock()
	c.Cut()
}

// Plug lets connections through again.
func (c *Cable) Plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = false
}

// NewCable makes one to an address, on a port of its own.
func NewCable(t testing.TB, to net.Addr) *Cable {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cable{l: l, to: to.String()}
	c.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			down, to := c.down, c.to
			c.mu.Unlock()
			out, err := c.dial(to)
			if err != nil || down {
				if err == nil {
					_ = out.Close()
				}
				_ = in.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, in, out)
			c.mu.Unlock()
			for _, p := range [][2]net.Conn{{in, out}, {out, in}} {
				c.wg.Go(func() {
					_, _ = io.Copy(p[0], p[1])
					_ = p[0].Close()
					_ = p[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.Cut()
		c.wg.Wait()
	})
	return c
}

func (c *Cable) dial(to string) (net.Conn, error) {
	var d net.Dialer
	if c.From != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.From)}
	}
	out, err := d.Dial("tcp", to)
	if err == nil {
		_, _ = io.WriteString(out, c.Says) // what is copied tells when it has ended
	}
	return out, err
}

// Cut ends all connections, with a reset so that nothing more of them is delivered.
func (c *Cable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	c.conns = nil
}

// Addr is where the cable begins.
func (c *Cable) Addr() net.Addr { return c.l.Addr() }

// Lead is where new connections go from now on.
func (c *Cable) Lead(to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = to
}
