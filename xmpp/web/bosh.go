package web

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/stream"

	streamerr "mellium.im/xmpp/stream"
)

const nsXBOSH = "urn:xmpp:xbosh" // XEP-0206

// What the server tells a client when a session is created (XEP-0124 §7.2).
const (
	maxWait    = 60                // chosen: proxies end what is silent for longer
	maxHold    = 2                 // chosen: more connections of one client bring nothing
	inactivity = 60 * time.Second  // chosen: browsers run the timers of pages in the background once a minute
	maxPause   = 120 * time.Second // chosen: the example of XEP-0124; who is away for longer resumes
	polling    = 2 * time.Second   // chosen: least load that still is a conversation
	maxRID     = 1<<53 - 1         // XEP-0124 §14.1
	maxRepeats = 10                // of one request. chosen: XEP-0124 §14.3 allows a limit
	maxReading = 2                 // requests of one connection whose bodies are on their way. chosen: as many as a client has open, as a rule
	wrapper    = 2 << 10           // bytes of <body/> itself, around an element of the largest size. chosen: real ones have less than 500
	boshMajor  = 1                 // XEP-0124 is version 1.11
	boshMinor  = 11
)

// boshes are the sessions of BOSH.
type boshes struct {
	s *Server

	mu   sync.Mutex
	open map[string]*boshSession // by sid
}

// ServeHTTP is /http-bind.
func (b *boshes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := b.s.client(r)
	if b.s.refused(w, r, c) {
		return
	}
	h := w.Header()
	if r.Header.Get("Origin") != "" {
		// Never with credentials: the server has no cookies, and none shall be sent.
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Add("Vary", "Origin")
	}
	switch r.Method {
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Content-Type")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodPost:
	default:
		h.Set("Allow", "POST, OPTIONS")
		http.Error(w, "XMPP over BOSH: POST a <body/> here", http.StatusMethodNotAllowed)
		return
	}
	s, body, condition, ok := b.readOne(r, c)
	if !ok {
		http.Error(w, "too many requests whose bodies are not there", http.StatusServiceUnavailable) // the client sends it again
		return
	}
	switch {
	case condition != "":
		if s != nil {
			s.arrived()
			s.fail(condition)
		}
		terminal(w, condition, body == nil || versioned(body))
		return
	case s == nil:
		s = b.create(w, c, body)
		if s == nil {
			return
		}
	}
	s.serve(w, r, body)
}

// readOne is read, unless the connection has too many requests that are being read: what a stranger makes the server hold is bounded for each
// connection, and over HTTP/2 one has many requests.
func (b *boshes) readOne(r *http.Request, c client) (s *boshSession, body *stream.Body, condition string, ok bool) {
	p := peerOf(r)
	defer p.reading.Add(-1)
	if p.reading.Add(1) > maxReading && !c.proxied {
		return nil, nil, "", false
	}
	s, body, condition = b.read(r)
	return s, body, condition, true
}

// read reads a request: at most as much as its session may send. A condition is a terminal one. When there is a session, arrived has to follow.
func (b *boshes) read(r *http.Request) (s *boshSession, body *stream.Body, condition string) {
	l := stream.BeforeAuth
	in := io.LimitReader(r.Body, int64(l.Bytes)+wrapper)
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, nil, "bad-request"
	}
	start, err := stream.ParseBodyStart(data, l)
	if err != nil {
		return nil, nil, "bad-request"
	}
	if sid, ok := start.Attr("", "sid"); ok {
		b.mu.Lock()
		s = b.open[sid]
		b.mu.Unlock()
		if s == nil {
			return nil, start, "item-not-found" // XEP-0124 §17.2
		}
		if !s.arrives() {
			s.fail("policy-violation")
			return nil, start, "policy-violation" // XEP-0124 §11
		}
		l = s.currentLimits()
		if len(data) >= stream.BeforeAuth.Bytes+wrapper {
			rest, err := io.ReadAll(io.LimitReader(r.Body, int64(l.Bytes+wrapper-len(data)+1)))
			if err != nil {
				s.arrived() // it was cut: the client sends it again
				return nil, start, "bad-request"
			}
			data = append(data, rest...)
		}
	}
	if len(data) >= l.Bytes+wrapper {
		return s, start, "policy-violation"
	}
	if body, err = stream.ParseBody(data, l); err != nil {
		if errors.Is(err, streamerr.PolicyViolation) {
			return s, start, "policy-violation"
		}
		return s, start, "bad-request"
	}
	return s, body, ""
}

// versioned reports whether a client understands terminal binding conditions: XEP-0124 §17.1. A request without a sid has to say so.
func versioned(body *stream.Body) bool {
	_, sid := body.Attr("", "sid")
	_, ver := body.Attr("", "ver")
	return sid || ver
}

// terminal answers with a terminal binding condition (XEP-0124 §17.2), or as the first clients expect it (§17.1).
func terminal(w http.ResponseWriter, condition string, versioned bool) {
	if !versioned {
		switch condition {
		case "bad-request":
			w.WriteHeader(http.StatusBadRequest)
			return
		case "policy-violation":
			w.WriteHeader(http.StatusForbidden)
			return
		case "item-not-found":
			w.WriteHeader(http.StatusNotFound)
			return
		}
	}
	send(w, defaultContent, terminate(condition, nil))
}

// terminate is a body that ends the session.
func terminate(condition string, content []byte) []byte {
	b := []byte("<body type='terminate'")
	if condition != "" {
		b = append(append(append(b, " condition='"...), condition...), '\'')
	}
	return closeBody(append(b, bodyNS...), content)
}

const (
	defaultContent = "text/xml; charset=utf-8"
	bodyNS         = " xmlns='" + stream.NSBody + "' xmlns:stream='" + xmpp.NSStream + "'"
)

func closeBody(b, content []byte) []byte {
	if len(content) == 0 {
		return append(b, "/>"...)
	}
	return append(append(append(b, '>'), content...), "</body>"...)
}

func send(w http.ResponseWriter, content string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", content)
	h.Set("Content-Length", strconv.Itoa(len(body))) // XEP-0124 §5: not chunked
	_, _ = w.Write(body)                             // the client may be gone: then it asks again
}

func number(body *stream.Body, name string, otherwise, most uint64) uint64 {
	v, ok := body.Attr("", name)
	if !ok {
		return min(otherwise, most)
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return min(otherwise, most)
	}
	return min(n, most)
}

// ridOf is the request's id, 0 when it has none that is valid.
func ridOf(body *stream.Body) uint64 {
	v, _ := body.Attr("", "rid")
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n > maxRID {
		return 0
	}
	return n
}

// create makes a session: XEP-0124 §7. Without one the request was answered.
func (b *boshes) create(w http.ResponseWriter, c client, body *stream.Body) *boshSession {
	legacy := !versioned(body)
	rid := ridOf(body)
	to, _ := body.Attr("", "to")
	switch {
	case rid == 0:
		terminal(w, "bad-request", !legacy)
		return nil
	case to == "":
		terminal(w, "improper-addressing", !legacy)
		return nil
	case b.s.stopping.Load():
		terminal(w, "system-shutdown", !legacy)
		return nil
	}
	var id [20]byte
	_, _ = rand.Read(id[:])
	s := &boshSession{b: b, id: hex.EncodeToString(id[:]), legacy: legacy, rid: rid - 1, first: rid,
		wait: number(body, "wait", maxWait, maxWait), hold: number(body, "hold", 1, maxHold),
		content: contentType(body), wake: make(chan struct{}, 1), limits: stream.BeforeAuth, arriving: 1}
	if s.wait == 0 || s.hold == 0 { // XEP-0124 §12: a polling session
		s.wait, s.hold = 0, 0
	}
	s.requests = s.hold + 1
	s.idle = inactivity
	if s.hold == 0 {
		s.idle += polling // XEP-0124 §12: more than for others, by more than the interval
	}
	_, s.acks = body.Attr("", "ack")
	s.version = version(body)
	s.key, _ = body.Attr("", "newkey")
	b.mu.Lock()
	b.open[s.id] = s
	b.mu.Unlock()
	// The session's requests may come over any number of TLS connections: there is nothing to bind to.
	ch := auth.Channel{Remote: c.addr, Secure: c.secure}
	if err := b.s.streams.Attach(s, ch); err != nil {
		b.remove(s)
		condition := "internal-server-error"
		if se := asStreamError(err); errors.Is(se, streamerr.PolicyViolation) || errors.Is(se, streamerr.SystemShutdown) {
			condition = se.Err
		}
		terminal(w, condition, !legacy)
		return nil
	}
	return s
}

func (b *boshes) remove(s *boshSession) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, s.id)
}

// contentType is what the client wants answers to be called (XEP-0124 §7.1). What a browser would run is not given.
func contentType(body *stream.Body) string {
	v, _ := body.Attr("", "content")
	switch t, _, err := mime.ParseMediaType(v); {
	case err != nil:
	case t == "application/xml" || t == "text/plain":
		return t + "; charset=utf-8"
	}
	return defaultContent
}

// version is the lower one of the client's and ours, empty for a client that has none: XEP-0124 §7.2.
func version(body *stream.Body) string {
	v, ok := body.Attr("", "ver")
	if !ok {
		return ""
	}
	major, minor, _ := strings.Cut(v, ".")
	x, err1 := strconv.ParseUint(major, 10, 16)
	y, err2 := strconv.ParseUint(minor, 10, 16)
	if err1 != nil || err2 != nil || x > boshMajor || x == boshMajor && y > boshMinor {
		x, y = boshMajor, boshMinor
	}
	return strconv.FormatUint(x, 10) + "." + strconv.FormatUint(y, 10)
}

// serve takes a request into the session and answers it when that has an answer.
func (s *boshSession) serve(w http.ResponseWriter, r *http.Request, body *stream.Body) {
	// The time of a long poll is not that of a slow client.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Now().Add(time.Duration(s.wait)*time.Second + s.b.s.cfg.RequestTimeout))
	req := &boshRequest{rid: ridOf(body), body: body, answer: make(chan []byte, 1)}
	taken := s.mayTake(r.Context())
	if taken {
		s.accept(req)
	}
	s.arrived()
	if !taken {
		return
	}
	var expired <-chan time.Time
	if s.wait > 0 {
		t := time.NewTimer(time.Duration(s.wait) * time.Second)
		defer t.Stop()
		expired = t.C
	}
	for {
		select {
		case answer := <-req.answer:
			if answer == nil {
				terminal(w, req.condition, false)
				return
			}
			send(w, s.content, answer)
			return
		case <-expired:
			s.expire(req)
		case <-r.Context().Done():
			s.abandon(req)
			return
		}
	}
}

// condition is the terminal binding condition for a stream error, and whether it says everything (XEP-0124 §17.2).
func condition(streamError []byte) (string, bool) {
	for _, c := range []streamerr.Error{streamerr.HostUnknown, streamerr.HostGone, streamerr.ImproperAddressing, streamerr.SystemShutdown, streamerr.InternalServerError} {
		if bytes.Contains(streamError, []byte("><"+c.Err+" ")) {
			return c.Err, true
		}
	}
	return "remote-stream-error", false
}
