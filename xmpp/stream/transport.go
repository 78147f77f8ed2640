package stream

import (
	"bytes"
	"time"

	"balcony/xmpp"
)

// Transport carries a client's stream whose elements travel whole: in WebSocket messages (RFC 7395) or HTTP bodies (XEP-0124). Stream
// headers and the end of the stream have forms of their own there.
//
// Receive, SetLimits and Restart belong to one goroutine, that of the stream. Send and Flush are not called by two at the same time. The other
// methods may be called from any goroutine.
type Transport interface {
	// Wait may be called before Receive, which then finds something to read. An idle session is mostly in it: it keeps little on the stack, and no
	// buffer. Its errors are those of Receive.
	Wait() error
	// Receive waits for the next event, which took size bytes. more tells that the one after it has arrived already. The
	// error is a stream error, os.ErrDeadlineExceeded, or why the transport is lost.
	Receive() (ev Event, size int, more bool, err error)
	// SetLimits changes the limits of what Receive takes.
	SetLimits(l Limits)
	// Restart makes the next event that counts the header of a new stream, as after SASL.
	Restart()
	// SetDeadline is until when Receive waits; the zero time is for ever. One in the past ends a Receive that waits.
	SetDeadline(t time.Time) error

	// Open sends the header of the server's stream.
	Open(h Header) error
	// Send takes one element, Flush sends what was taken. Neither waits for the peer. The error is final.
	Send(s Sent) error
	Flush() error
	// Begin is called once, when the session begins and what is sent comes from an outbox.
	Begin(b Begin)
	// Ping makes the peer give a sign of life, if the transport has a way of its own.
	Ping()

	// End ends the server's stream, behind what was flushed, with a stream error if there is one. It does not wait.
	End(streamError []byte) error
	// Linger waits a while for the peer's end.
	Linger()
	// Close ends the transport.
	Close()
	// Unacknowledged are the stanzas that were flushed and that the peer is not known to have got, as far as the transport can tell.
	Unacknowledged() []*xmpp.Stanza
}

// Begin is what a transport does with a session from its beginning on. What is called must not call the transport, except Drained.
type Begin struct {
	Limit   int         // bytes that may wait for the peer
	Stall   func()      // the peer takes no more
	Unstall func()      // it has taken everything
	Drained func(error) // follows Unstall; or, with an error, the peer will never take it
	Alive   func()      // a sign of life that is no event
}

// Sent is what a Transport sends: a stanza, or the bytes of another element, which declares its namespaces.
type Sent struct {
	Stanza *xmpp.Stanza
	Raw    []byte
}

// AppendTo appends the element with all its namespaces declared.
func (s Sent) AppendTo(b []byte) []byte {
	if s.Stanza != nil {
		return s.Stanza.AppendStandalone(b)
	}
	return append(b, s.Raw...)
}

// streamPrefix declares the prefix that AppendFeatures and AppendError use.
const streamPrefix = " xmlns:stream='" + xmpp.NSStream + "'"

// Standalone is an element that AppendFeatures or AppendError made, with the prefix declared that the stream header declares elsewhere.
func Standalone(b []byte) []byte {
	i := bytes.IndexAny(b, "/>") // its name has neither
	out := make([]byte, 0, len(b)+len(streamPrefix))
	return append(append(append(out, b[:i]...), streamPrefix...), b[i:]...)
}
