// Package client is the minimal XMPP client of the benchmark: it logs in, finds where stanzas end, and otherwise keeps out of the
// way, so that what is measured is the server. It trusts the server to send well-formed XML without comments or CDATA sections.
package client

import (
	"bytes"
	"errors"
	"io"
)

// maxFrame is the largest top-level element a Framer accepts. Chosen: above every server's own stanza limit.
const maxFrame = 1 << 20

// Errors of Framer.
var (
	ErrStreamClosed  = errors.New("peer closed the stream")
	ErrFrameTooLarge = errors.New("element is larger than 1 MiB")
)

// Framer cuts the bytes of an XML stream into top-level elements without parsing them. It is used by one goroutine.
type Framer struct {
	r     io.Reader
	buf   []byte
	start int // where the current element begins
	pos   int // next byte to look at
	end   int // end of the bytes read

	depth   int
	inTag   bool
	closing bool // the tag began with "</"
	decl    bool // the tag began with "<?"
	quote   byte // inside an attribute value: its delimiter
}

// NewFramer returns a Framer that reads from r through a buffer that begins with size bytes.
func NewFramer(r io.Reader, size int) *Framer {
	return &Framer{r: r, buf: make([]byte, size)}
}

// Reset lets f begin a new stream on r (after STARTTLS or SASL) and forgets what is buffered.
func (f *Framer) Reset(r io.Reader) { *f = Framer{r: r, buf: f.buf} }

// Buffered reports whether bytes that were read are still waiting. A reader that writes answers can gather them while it is true.
func (f *Framer) Buffered() bool { return f.pos < f.end }

// Header reads up to the end of the stream's start tag and returns that tag.
func (f *Framer) Header() ([]byte, error) {
	for {
		if err := f.tag(); err != nil {
			return nil, err
		}
		if f.decl || f.closing {
			continue
		}
		tag := f.buf[f.start:f.pos]
		f.start = f.pos
		return tag, nil
	}
}

// Next returns the next top-level element inside the stream. The bytes are valid until the following call.
// It returns ErrStreamClosed at the stream's end tag.
func (f *Framer) Next() ([]byte, error) {
	for {
		if err := f.tag(); err != nil {
			return nil, err
		}
		switch {
		case f.decl:
		case f.closing:
			f.depth--
		case f.buf[f.pos-2] != '/':
			f.depth++
		}
		if f.depth < 0 {
			return nil, ErrStreamClosed
		}
		if f.depth == 0 {
			frame := f.buf[f.start:f.pos]
			f.start = f.pos
			return frame, nil
		}
	}
}

// tag advances pos behind the next tag. At depth 0 start is set to its first byte.
func (f *Framer) tag() error {
	for {
		for f.pos < f.end {
			b := f.buf[f.pos:f.end]
			if !f.inTag {
				i := bytes.IndexByte(b, '<')
				if i < 0 {
					f.pos = f.end
					break
				}
				if i+1 == len(b) { // what the tag is shows in the next byte
					f.pos += i
					break
				}
				if f.depth == 0 {
					f.start = f.pos + i
				}
				f.inTag, f.closing, f.decl = true, b[i+1] == '/', b[i+1] == '?'
				f.pos += i + 2
				if b[i+1] == '>' {
					f.pos--
				}
				continue
			}
			if f.quote != 0 {
				i := bytes.IndexByte(b, f.quote)
				if i < 0 {
					f.pos = f.end
					break
				}
				f.quote = 0
				f.pos += i + 1
				continue
			}
			for i, c := range b {
				if c == '>' {
					f.pos += i + 1
					f.inTag = false
					return nil
				}
				if c == '\'' || c == '"' {
					f.quote = c
					f.pos += i + 1
					break
				}
			}
			if f.quote == 0 {
				f.pos = f.end
			}
		}
		if err := f.fill(); err != nil {
			return err
		}
	}
}

// fill reads more bytes, and makes room first.
func (f *Framer) fill() error {
	if f.depth == 0 && !f.inTag {
		f.start = f.pos // whitespace between elements
	}
	if f.start > 0 {
		copy(f.buf, f.buf[f.start:f.end])
		f.pos -= f.start
		f.end -= f.start
		f.start = 0
	}
	if f.end == len(f.buf) {
		if len(f.buf) >= maxFrame {
			return ErrFrameTooLarge
		}
		f.buf = append(f.buf, make([]byte, len(f.buf)+512)...)
	}
	n, err := f.r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Attr returns the value of an attribute of the frame's start tag, still escaped, or nil.
func Attr(frame []byte, name string) []byte {
	tag := frame
	for i := 0; i < len(tag); {
		j := bytes.IndexAny(tag[i:], "'\">")
		if j < 0 || tag[i+j] == '>' {
			return nil
		}
		q := i + j
		n := bytes.IndexByte(tag[q+1:], tag[q])
		if n < 0 {
			return nil
		}
		if key := bytes.TrimRight(tag[i:q], "= \t\r\n"); bytes.HasSuffix(key, []byte(name)) {
			if before := len(key) - len(name) - 1; before >= 0 && key[before] <= ' ' {
				return tag[q+1 : q+1+n]
			}
		}
		i = q + 1 + n + 1
	}
	return nil
}

// Between returns what stands between the first occurrence of left and the following right, or nil.
func Between(b []byte, left, right string) []byte {
	i := bytes.Index(b, []byte(left))
	if i < 0 {
		return nil
	}
	b = b[i+len(left):]
	if i = bytes.Index(b, []byte(right)); i < 0 {
		return nil
	}
	return b[:i]
}
