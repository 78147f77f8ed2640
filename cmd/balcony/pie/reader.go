package pie

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"balcony/xmpp"
	"balcony/xmpp/stream"
)

// Bounds of a document. It may have any length; what is held of it at once is bounded.
const (
	maxElement = 4 << 20 // bytes. chosen: far above the largest stanza, below what a process misses
	maxDepth   = 128     // chosen: twice what a stream takes
)

// limits are those of the stanzas and elements of a document, which are the same things that clients send.
var limits = stream.Limits{Bytes: maxElement, Depth: maxDepth, Attributes: 64, Children: 1 << 14}

// parseStanza validates a stanza.
func parseStanza(b []byte) (*xmpp.Stanza, error) { return stream.Parse(b, limits) }

var errTooLarge = fmt.Errorf("an element of more than %d bytes", maxElement)

// meter bounds how much the decoder reads for one element.
type meter struct {
	r *bufio.Reader
	n int // since the last element began
}

// ReadByte is what encoding/xml reads with: it takes no byte in advance.
func (m *meter) ReadByte() (byte, error) {
	if m.n++; m.n > maxElement {
		return 0, errTooLarge
	}
	return m.r.ReadByte()
}

// Read is never called.
func (m *meter) Read(p []byte) (int, error) {
	b, err := m.ReadByte()
	if err != nil || len(p) == 0 {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

// reader reads a document from its start to its end.
type reader struct {
	d *xml.Decoder
	m *meter
}

func newReader(in io.Reader) *reader {
	m := &meter{r: bufio.NewReaderSize(in, 64<<10)}
	return &reader{d: xml.NewDecoder(m), m: m}
}

// at adds the place to an error.
func (r *reader) at(err error) error {
	if err == nil {
		return nil
	}
	return r.place(err)
}

func (r *reader) place(err error) *placed {
	if p := (*placed)(nil); errors.As(err, &p) {
		return p
	}
	line, column := r.d.InputPos()
	var se *xml.SyntaxError
	if errors.As(err, &se) {
		err = errors.New(se.Msg)
	} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errors.New("the document ends too early")
	}
	return &placed{err, line, column}
}

// placed is an error with its place in the document.
type placed struct {
	error
	line, column int
}

func (p *placed) Error() string {
	return fmt.Sprintf("line %d, column %d: %v", p.line, p.column, p.error)
}
func (p *placed) Unwrap() error { return p.error }

// next is the start of the next child of the element that is open; ok is false at its end.
func (r *reader) next() (start xml.StartElement, ok bool, err error) {
	for {
		r.m.n = 0
		t, err := r.d.Token()
		if err != nil {
			return start, false, r.at(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			return t.Copy(), true, nil
		case xml.EndElement:
			return start, false, nil
		case xml.CharData:
			if strings.TrimSpace(string(t)) != "" {
				return start, false, r.at(errors.New("text where only elements may be"))
			}
		case xml.Directive:
			return start, false, r.at(errors.New("a document type is not allowed")) // security: it could declare entities
		}
	}
}

// root is the start of the document.
func (r *reader) root() (xml.StartElement, error) {
	start, ok, err := r.next()
	if err == nil && !ok {
		err = r.at(io.ErrUnexpectedEOF)
	}
	return start, err
}

// end reads what may follow the document: nothing.
func (r *reader) end() error {
	for {
		r.m.n = 0
		switch t, err := r.d.Token(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return r.at(err)
		default:
			switch t := t.(type) {
			case xml.Comment:
				continue
			case xml.CharData:
				if strings.TrimSpace(string(t)) == "" {
					continue
				}
			}
			return r.at(errors.New("something follows the end of the document"))
		}
	}
}

// element reads the element whose start was read.
func (r *reader) element(start xml.StartElement) (*xmpp.Element, error) {
	e, err := xmpp.ReadElementFrom(r.d, start, maxDepth)
	return e, r.at(err)
}

// stanza reads the stanza whose start was read, and validates it.
func (r *reader) stanza(start xml.StartElement) (*xmpp.Stanza, error) {
	e, err := r.element(start)
	if err != nil {
		return nil, err
	}
	s, err := parseStanza(e.AppendTo(nil, ""))
	return s, r.at(err)
}

// payload reads the element whose start was read, and validates it as it would be inside of a stanza.
func (r *reader) payload(start xml.StartElement) (xmpp.Child, error) {
	e, err := r.element(start)
	if err != nil {
		return xmpp.Child{}, err
	}
	s, err := parseStanza(append(e.AppendTo([]byte("<iq type='set' id='0'>"), ""), "</iq>"...))
	if err != nil {
		return xmpp.Child{}, r.at(err)
	}
	c, _ := s.Payload()
	return c, nil
}

// skip reads over the rest of an element of any size.
func (r *reader) skip() error {
	for depth := 1; depth > 0; {
		r.m.n = 0
		t, err := r.d.Token()
		if err != nil {
			return r.at(err)
		}
		switch t.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return r.at(fmt.Errorf("elements more than %d deep", maxDepth))
			}
		case xml.EndElement:
			depth--
		}
	}
	return nil
}

// attr is the value of an attribute without a namespace.
func attr(start xml.StartElement, name string) string {
	for _, a := range start.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
