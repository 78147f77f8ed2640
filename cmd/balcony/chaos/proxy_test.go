package chaos

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy is the bad network between the clients and the server. Each connection goes through a number of bytes that was drawn for it, in each
// direction; the byte after that never arrives.
type proxy struct {
	listener net.Listener
	cuts     atomic.Int64
	calm     atomic.Bool // nothing is cut any more

	mu     sync.Mutex
	rnd    *rand.Rand // guarded by mu
	target string     // guarded by mu: where the server is now
	open   sync.WaitGroup
}

func newProxy(seed uint64) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, rnd: rand.New(rand.NewPCG(seed, 1))}
	p.open.Go(p.serve)
	return p, nil
}

func (p *proxy) setTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// close ends the listener and waits for the connections, which their ends close.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.open.Wait()
}

func (p *proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		l := &link{proxy: p, client: c.(*net.TCPConn), up: p.budget(), down: p.budget(), way: way(p.rnd.IntN(4)), pause: time.Duration(p.rnd.IntN(3000)) * time.Millisecond}
		p.mu.Unlock()
		p.open.Go(func() { l.run(target) })
	}
}

// budget is how many bytes pass: some connections end within TLS or the login, most while stanzas flow.
func (p *proxy) budget() int64 {
	if p.rnd.IntN(5) == 0 {
		return int64(p.rnd.IntN(4000))
	}
	return int64(4000 + p.rnd.ExpFloat64()*20000)
}

// way is how a connection ends.
type way int

const (
	reset     way = iota // both sides are told that it was reset
	half                 // only the client is told; the server waits for more
	forgotten            // only the server is told
	frozen               // nobody is told, but nothing passes any more
)

type link struct {
	proxy          *proxy
	client, server *net.TCPConn
	up, down       int64
	way            way
	pause          time.Duration // until the side that was not told is
	once           sync.Once
}

func (l *link) run(target string) {
	c, err := net.Dial("tcp", target)
	if err != nil {
		abort(l.client)
		return
	}
	l.server = c.(*net.TCPConn)
	var done sync.WaitGroup
	done.Go(func() { l.copy(l.server, l.client, l.up) })
	done.Go(func() { l.copy(l.client, l.server, l.down) })
	done.Wait()
	_, _ = l.client.Close(), l.server.Close()
}

// copy passes bytes on until the budget is used up or an end closes.
func (l *link) copy(to, from *net.TCPConn, budget int64) {
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		cut := !l.proxy.calm.Load() && int64(n) >= budget
		if cut {
			n = int(budget)
		}
		budget -= int64(n)
		if _, werr := to.Write(b[:n]); werr != nil || err != nil && err != io.EOF {
			abort(to)
			abort(from)
			return
		}
		if err == io.EOF {
			_ = to.CloseWrite()
			return
		}
		if cut {
			l.once.Do(l.cut)
			return
		}
	}
}

func (l *link) cut() {
	l.proxy.cuts.Add(1)
	switch l.way {
	case reset:
		abort(l.client)
		abort(l.server)
	case half:
		abort(l.client)
		time.Sleep(l.pause)
		abort(l.server)
	case forgotten:
		abort(l.server)
		time.Sleep(l.pause)
		abort(l.client)
	case frozen:
		time.Sleep(l.pause)
		abort(l.client)
		abort(l.server)
	}
}

// abort resets a connection: what was written and not yet read is lost.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
