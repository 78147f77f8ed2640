package stream

import "sync"

// Sizes of the buffers that decoders share. chosen: most reads and nearly all stanzas fit into the first; the second takes all that a peer can send
// before authentication; the third takes the 16 KiB of a TLS record on top of the first. What needs more is allocated for the one element.
const (
	smallBuffer  = 4 << 10
	middleBuffer = 14 << 10
	largeBuffer  = 20 << 10
)

// buffer holds bytes that were fed and are not consumed: those from off on.
type buffer struct {
	buf    []byte
	off    int
	large  *[largeBuffer]byte  // one of these two at most
	middle *[middleBuffer]byte //
	small  [smallBuffer]byte
}

var (
	scanners = sync.Pool{New: func() any {
		s := new(scanner)
		s.buf = s.small[:0]
		return s
	}}
	middles = sync.Pool{New: func() any { return new([middleBuffer]byte) }}
	larges  = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// add appends a copy of p.
func (b *buffer) add(p []byte) {
	if len(p) > cap(b.buf)-len(b.buf) {
		b.move(len(b.buf) - b.off + len(p))
	}
	b.buf = append(b.buf, p...)
}

// rest are the bytes that are not consumed.
func (b *buffer) rest() []byte { return b.buf[b.off:] }

// move brings the rest to the front of the smallest buffer with room for n bytes in all.
func (b *buffer) move(n int) {
	var to []byte
	var middle *[middleBuffer]byte
	var large *[largeBuffer]byte
	switch {
	case n <= smallBuffer:
		to = b.small[:0]
	case n <= middleBuffer && b.large == nil:
		if middle = b.middle; middle == nil {
			middle = middles.Get().(*[middleBuffer]byte)
		}
		to = middle[:0]
	case n <= largeBuffer:
		if large = b.large; large == nil {
			large = larges.Get().(*[largeBuffer]byte)
		}
		to = large[:0]
	case n <= cap(b.buf):
		to = b.buf[:0]
	default:
		to = make([]byte, 0, n+n/2) // half more: an element that drips in is moved a logarithmic number of times
	}
	b.buf, b.off = append(to, b.rest()...), 0
	if b.middle != nil && middle == nil {
		middles.Put(b.middle)
	}
	if b.large != nil && large == nil {
		larges.Put(b.large)
	}
	b.middle, b.large = middle, large
}

// keepable bounds the lists that a scanner takes back to the pool. chosen: those of an ordinary stanza.
const keepable = 128

// release gives the scanner and its buffers back. Nothing may refer to them.
func (s *scanner) release() {
	s.begin(0)
	s.buf, s.off = s.buf[:0], 0
	s.move(0)
	if cap(s.attrs) > keepable {
		s.attrs = nil
	}
	if cap(s.kids) > keepable {
		s.kids = nil
	}
	if cap(s.cuts) > keepable {
		s.cuts = nil
	}
	scanners.Put(s)
}
