package s2s

import (
	"errors"
	"net"
	"sync"
	"time"

	"balcony/xmpp"
)

// writer writes what is queued for a stream, from a goroutine of its own: many stanzas with one write, and nobody waits for a peer that does not
// read. What it may hold is little: the rest waits in the links, where it can be given back.
type writer struct {
	// Static after construction.
	conn net.Conn
	fail func(error) // called once, from the writer's goroutine, when a write failed
	room func()      // called from there when there is room again
	wake chan struct{}
	done chan struct{} // closed when the goroutine has ended

	mu sync.Mutex
	// Guarded by mu.
	queue    []entry
	inflight []entry
	size     int  // bytes in queue and inflight
	trusted  bool // the peer has proven a domain
	last     bool // nothing more is taken; what is there is written
	dead     bool // nothing more is written
}

// entry is a stanza, or bytes of the stream itself.
type entry struct {
	item   *item
	stanza *xmpp.Stanza // of item, as it is written
	raw    []byte
}

func (e entry) size() int {
	if e.stanza != nil {
		return e.stanza.Size()
	}
	return len(e.raw)
}

const (
	// highWater is how many bytes a writer takes before its links keep theirs. chosen: four TLS records, enough to keep the socket busy.
	highWater = 64 << 10
	// maxWrite is how much is encoded before it is written: one TLS record.
	maxWrite = 16 << 10
	// maxControl bounds what is written beside stanzas. chosen: a peer that asks for answers and does not read them is cut.
	maxControl = 256 << 10
	// maxStranger is the same before it has proven a domain.
	maxStranger = 32 << 10
	// writeTimeout is how long one write may take. chosen: a peer that does not take 16 KiB in that time is gone.
	writeTimeout = 60 * time.Second
)

var errSlow = errors.New("the peer does not read")

func newWriter(c net.Conn, fail func(error), room func()) *writer {
	w := &writer{conn: c, fail: fail, room: room, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// add takes an entry; false when the stream has ended.
func (w *writer) add(e entry) bool {
	w.mu.Lock()
	most := maxStranger
	if w.trusted {
		most = maxControl + highWater
	}
	if w.last || w.dead || e.stanza == nil && w.size+len(e.raw) > most {
		w.mu.Unlock()
		return false
	}
	w.queue = append(w.queue, e)
	w.size += e.size()
	w.mu.Unlock()
	return true
}

// trust lifts the bound of a stranger.
func (w *writer) trust() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trusted = true
}

// flush sees to it that what was added is written.
func (w *writer) flush() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// full reports whether there is no room for stanzas.
func (w *writer) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size >= highWater || w.last || w.dead
}

func (w *writer) bytes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// finish writes b behind everything else and takes nothing more; false when the stream has ended already.
func (w *writer) finish(b []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last || w.dead {
		return false
	}
	w.queue = append(w.queue, entry{raw: b})
	w.size += len(b)
	w.last = true
	w.flush()
	return true
}

// end writes b behind everything else, and waits until that is done, for at most d.
func (w *writer) end(b []byte, d time.Duration) bool {
	w.finish(b)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size == 0
}

// stop ends the writing, waits for it, and returns the stanzas that were not written whole, in order. The connection is closed by then.
func (w *writer) stop() []*item {
	w.mu.Lock()
	w.dead = true
	w.mu.Unlock()
	w.flush()
	<-w.done
	var left []*item
	for _, list := range [][]entry{w.inflight, w.queue} {
		for _, e := range list {
			if e.item != nil {
				left = append(left, e.item)
			}
		}
	}
	w.inflight, w.queue = nil, nil
	return left
}

func (w *writer) run() {
	defer close(w.done)
	for range w.wake {
		for {
			w.mu.Lock()
			if w.dead || len(w.queue) == 0 {
				over := w.dead || w.last
				w.mu.Unlock()
				if over {
					return
				}
				break
			}
			w.inflight, w.queue = w.queue, nil
			w.mu.Unlock()
			if err := w.write(); err != nil {
				w.mu.Lock()
				w.dead = true
				w.mu.Unlock()
				w.fail(err)
				return
			}
			w.room()
		}
	}
}

// write writes inflight, and takes off it what went out.
func (w *writer) write() error {
	buf := getBuffer()
	defer func() { putBuffer(buf) }()
	for done := 0; done < len(w.inflight); {
		buf = buf[:0]
		next, size := done, 0
		for next < len(w.inflight) && len(buf) < maxWrite {
			e := w.inflight[next]
			if e.stanza != nil {
				buf = e.stanza.AppendTo(buf)
			} else {
				buf = append(buf, e.raw...)
			}
			size += e.size()
			next++
		}
		w.mu.Lock()
		dead := w.dead
		w.mu.Unlock()
		err := net.ErrClosed
		if !dead {
			_ = w.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			_, err = w.conn.Write(buf)
		}
		w.mu.Lock()
		if err != nil {
			for _, e := range w.inflight[done:next] {
				if e.item != nil && !dead {
					e.item.again = true // a part may have gone out
				}
			}
			w.inflight = w.inflight[done:]
			w.mu.Unlock()
			return err
		}
		w.size -= size
		w.mu.Unlock()
		done = next
	}
	w.mu.Lock()
	w.inflight = nil
	w.mu.Unlock()
	return nil
}

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, maxWrite+4096)
	return &b
}}

func getBuffer() []byte { return (*buffers.Get().(*[]byte))[:0] }

func putBuffer(b []byte) {
	if cap(b) >= maxWrite && cap(b) <= 4*maxWrite {
		buffers.Put(&b)
	}
}
