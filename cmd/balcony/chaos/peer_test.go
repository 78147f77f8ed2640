package chaos

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"balcony/xmpp"
)

const (
	password = "secret"
	nsSM     = "urn:xmpp:sm:3"
	silence  = 1500 * time.Millisecond // after which a client gives a connection up
)

// peer is a client with stream management (XEP-0198) that sends messages to others and acknowledges what it gets. It comes back whenever its
// connection is lost, by resumption if the server lets it, and sends again what was not acknowledged, with the same id (XEP-0198 §4).
type peer struct {
	run     *run
	account string
	name    string // account and number of the device
	agent   string // user agent's id
	reader  bool   // binds with Bind 2 and reads the archive; the others bind as RFC 6120 has it and take what comes
	shares  bool   // the account has another device
	rnd     *rand.Rand

	mu sync.Mutex
	// Guarded by mu.
	conn    net.Conn // nil while it is not online
	id      string   // SM-ID, "" for none
	in      uint32   // stanzas that were received on the session
	acked   uint32   // of ours
	queue   []outgoing
	token   string // XEP-0484
	next    map[string]int
	got     []*arrival
	first   int             // in got, of the session: what an earlier one got is acknowledged by that one or never
	have    map[string]bool // archive ids of what has come (XEP-0359)
	last    string          // archive id up to which the archive was read
	pings   int
	resumed int
	bound   int
}

// outgoing is a stanza that the server has not acknowledged.
type outgoing struct {
	xml  string
	id   string // of a message
	out  bool   // of a message: it was written on the present session
	seen int    // of a ping: arrivals that were acknowledged before it
}

// arrival is a message that came.
type arrival struct {
	id, stanzaID string
	at           time.Time
	certain      time.Time // when the server knew that it came: what we sent after acknowledging it was acknowledged; zero: it may not know
	archived     bool      // it was known from the archive already
}

// live connects again and again until ctx is done.
func (p *peer) live(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.session(ctx)
		if err != nil && ctx.Err() == nil {
			p.run.debug("%s: %v", p.name, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(5+p.draw(60)) * time.Millisecond):
		}
	}
}

func (p *peer) draw(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rnd.IntN(n)
}

// timely gives each read and write of a connection the same time.
type timely struct {
	net.Conn
	time time.Duration
}

func (t timely) Read(b []byte) (int, error) {
	_ = t.SetReadDeadline(time.Now().Add(t.time))
	return t.Conn.Read(b)
}

func (t timely) Write(b []byte) (int, error) {
	_ = t.SetWriteDeadline(time.Now().Add(t.time))
	return t.Conn.Write(b)
}

// session is one connection from its first byte to its end.
func (p *peer) session(ctx context.Context) error {
	raw, err := net.Dial("tcp", p.run.proxy.listener.Addr().String())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { abort(raw.(*net.TCPConn)) })
	defer stop()
	defer abort(raw.(*net.TCPConn))
	c := tls.Client(timely{raw, silence}, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"xmpp-client"}})
	if _, err := io.WriteString(c, "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"+p.authenticate()); err != nil {
		return err
	}
	d := xml.NewDecoder(c)
	for {
		t, err := d.Token()
		if err != nil {
			return err
		}
		if _, ok := t.(xml.StartElement); ok {
			break
		}
	}
	for {
		e, err := xmpp.ReadElement(d)
		if err != nil {
			return err
		}
		switch e.Local {
		case "success":
			if child(e, "resumed") == nil && !p.reader {
				if e, err = p.bind(c, d, e); err != nil {
					return err
				}
			}
			if err := p.begin(c, e); err != nil {
				return err
			}
			defer p.end()
			return p.read(c, d)
		case "failure":
			p.mu.Lock()
			p.token = "" // the password works
			p.mu.Unlock()
			return fmt.Errorf("login failed: %s", e)
		case "error":
			return fmt.Errorf("login: %s", e)
		}
	}
}

// authenticate is SASL2 with everything inline, by a token if there is one.
func (p *peer) authenticate() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	user, _, _ := bytes.Cut([]byte(p.account), []byte("@"))
	var b bytes.Buffer
	if p.token != "" && p.rnd.IntN(4) > 0 {
		mac := hmac.New(sha256.New, []byte(p.token))
		mac.Write([]byte("Initiator"))
		fmt.Fprintf(&b, "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'><initial-response>%s</initial-response><fast xmlns='urn:xmpp:fast:0'/>",
			base64.StdEncoding.EncodeToString(append(append(user, 0), mac.Sum(nil)...)))
	} else {
		fmt.Fprintf(&b, "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>%s</initial-response><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>",
			base64.StdEncoding.EncodeToString([]byte("\x00"+string(user)+"\x00"+password)))
	}
	fmt.Fprintf(&b, "<user-agent id='%s'/>", p.agent)
	if p.id != "" {
		fmt.Fprintf(&b, "<resume xmlns='%s' previd='%s' h='%d'/>", nsSM, p.id, p.in)
	}
	if p.reader {
		fmt.Fprintf(&b, "<bind xmlns='urn:xmpp:bind:0'><enable xmlns='%s' resume='true'/></bind>", nsSM)
	}
	b.WriteString("</authenticate>")
	return b.String()
}

// bind is RFC 6120 §7 and XEP-0198 §3. It returns a <success/> with <bound/>, as with Bind 2.
func (p *peer) bind(c net.Conn, d *xml.Decoder, success *xmpp.Element) (*xmpp.Element, error) {
	if _, err := xmpp.ReadElement(d); err != nil { // features
		return nil, err
	}
	_, err := fmt.Fprintf(c, "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq><enable xmlns='%s' resume='true'/>", p.name, nsSM)
	if err != nil {
		return nil, err
	}
	for {
		e, err := xmpp.ReadElement(d)
		if err != nil {
			return nil, err
		}
		switch {
		case e.Local == "enabled":
			return success.Add(xmpp.El("urn:xmpp:bind:0", "bound").Add(e)), nil
		case e.Local != "iq" || e.Attr("type") != "result":
			return nil, fmt.Errorf("bind: %s", e)
		}
	}
}

func child(e *xmpp.Element, local string) *xmpp.Element {
	for _, c := range e.Children {
		if c.Local == local {
			return c
		}
	}
	return nil
}

// begin takes the state that <success/> gives and sends what has to be sent again.
func (p *peer) begin(c net.Conn, success *xmpp.Element) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := child(success, "token"); t != nil {
		p.token = t.Attr("token")
	}
	var b bytes.Buffer
	if r := child(success, "resumed"); r != nil {
		p.resumed++
		if err := p.handled(r.Attr("h")); err != nil {
			return err
		}
		for i, o := range p.queue {
			if o.id != "" && !o.out {
				p.queue[i].out = true
				p.run.submitted(o.id)
			}
		}
	} else {
		bound := child(success, "bound")
		if bound == nil || child(bound, "enabled") == nil {
			return fmt.Errorf("neither resumed nor bound: %s", success)
		}
		p.bound++
		if f := child(success, "failed"); f != nil && f.Attr("h") != "" {
			if err := p.handled(f.Attr("h")); err != nil {
				return err
			}
		}
		p.id, p.in, p.acked, p.first = child(bound, "enabled").Attr("id"), 0, 0, len(p.got)
		queue := []outgoing{{xml: "<presence/>"}}
		if p.reader {
			queue = append(queue, outgoing{xml: p.query()})
		}
		for _, o := range p.queue {
			if o.id != "" {
				p.run.submitted(o.id)
				o.out = true
				queue = append(queue, o)
			}
		}
		p.queue = queue
	}
	for _, o := range p.queue {
		b.WriteString(o.xml)
	}
	b.WriteString("<r xmlns='" + nsSM + "'/>")
	p.conn = c
	_, err := c.Write(b.Bytes())
	return err
}

func (p *peer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = nil
}

// handled is an h of the server's. It is called with mu held.
func (p *peer) handled(h string) error {
	v, err := strconv.ParseUint(h, 10, 32)
	n := int(uint32(v) - p.acked)
	if err != nil || n > len(p.queue) {
		p.run.fault("%s: h=%q after %d, with %d sent", p.name, h, p.acked, len(p.queue))
		return errors.New("impossible h")
	}
	for _, o := range p.queue[:n] {
		if o.id != "" {
			p.run.acknowledged(o.id)
		}
		for _, a := range p.got[min(p.first, o.seen):o.seen] {
			if a.certain.IsZero() {
				a.certain = time.Now()
			}
		}
	}
	p.queue = p.queue[n:]
	p.acked = uint32(v)
	return nil
}

// read takes what comes until the connection ends.
func (p *peer) read(c net.Conn, d *xml.Decoder) error {
	for {
		e, err := xmpp.ReadElement(d)
		if err != nil {
			return err
		}
		p.mu.Lock()
		err = p.take(c, e)
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// take is called with mu held.
func (p *peer) take(c net.Conn, e *xmpp.Element) error {
	switch e.Local {
	case "message":
		p.in++
		if r := child(e, "result"); r != nil {
			p.found(r)
			return nil
		}
		p.arrived(e)
		if p.rnd.IntN(4) == 0 {
			return p.acknowledge(c, true)
		}
	case "presence":
		p.in++
	case "iq":
		p.in++
		if fin := child(e, "fin"); fin != nil {
			if set := child(fin, "set"); set != nil && child(set, "last") != nil {
				p.last = child(set, "last").Text
			}
			if fin.Attr("complete") != "true" {
				o := outgoing{xml: p.query()}
				p.queue = append(p.queue, o)
				_, err := io.WriteString(c, o.xml)
				return err
			}
		}
		if e.Attr("type") == "error" {
			p.run.fault("%s: %s", p.name, e)
		}
	case "r":
		return p.acknowledge(c, false)
	case "a":
		return p.handled(e.Attr("h"))
	case "error":
		return fmt.Errorf("%s", e)
	}
	return nil
}

// acknowledge sends <a/>, and if it has to be certain a ping after it.
func (p *peer) acknowledge(c net.Conn, certain bool) error {
	text := fmt.Sprintf("<a xmlns='%s' h='%d'/>", nsSM, p.in)
	if certain {
		p.pings++
		o := outgoing{xml: fmt.Sprintf("<iq type='get' id='p%d' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", p.pings), seen: len(p.got)}
		p.queue = append(p.queue, o)
		text += o.xml + "<r xmlns='" + nsSM + "'/>"
	}
	_, err := io.WriteString(c, text)
	return err
}

func (p *peer) arrived(e *xmpp.Element) {
	id := e.Attr("id")
	if e.Attr("type") == "error" {
		p.run.fault("%s: %s", p.name, e)
		return
	}
	a := &arrival{id: id, at: time.Now()}
	if s := child(e, "stanza-id"); s != nil {
		a.stanzaID = s.Attr("id")
	}
	if p.reader && p.have[a.stanzaID] {
		a.archived = true // it read the archive before this came
	}
	p.have[a.stanzaID] = true
	p.got = append(p.got, a)
}

// query asks for what the archive has that was not read before (XEP-0313 §4.3 with XEP-0059).
func (p *peer) query() string { return query(p.last) }

func query(after string) string {
	if after != "" {
		after = "<after>" + after + "</after>"
	}
	return "<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>50</max>" + after + "</set></query></iq>"
}

// forwarded is the message in a result of the archive.
func forwarded(result *xmpp.Element) *xmpp.Element {
	if f := child(result, "forwarded"); f != nil {
		return child(f, "message")
	}
	return nil
}

// found takes a result of the archive, unless it came live or was sent from this account.
func (p *peer) found(result *xmpp.Element) {
	m, id := forwarded(result), result.Attr("id")
	if m == nil || p.have[id] || m.Attr("to") != p.account {
		return
	}
	p.have[id] = true
	p.got = append(p.got, &arrival{id: m.Attr("id"), stanzaID: id, at: time.Now()})
}

// say sends the next message to another account.
func (p *peer) say(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := fmt.Sprintf("%s>%s>%d", p.name, to, p.next[to])
	p.next[to]++
	o := outgoing{id: id, xml: fmt.Sprintf("<message type='chat' to='%s' id='%s'><body>%s %s</body></message>", to, id, id, filler[:p.rnd.IntN(len(filler))])}
	p.run.wanted(id)
	if o.out = p.conn != nil; o.out {
		p.run.submitted(id)
	}
	p.queue = append(p.queue, o)
	if o.out {
		text := o.xml
		if p.rnd.IntN(3) == 0 {
			text += "<r xmlns='" + nsSM + "'/>"
		}
		_, _ = io.WriteString(p.conn, text) // the reader notices
	}
}

const filler = "But soft, what light through yonder window breaks? It is the east, and Juliet is the sun. Arise, fair sun, and kill the envious moon, who is already sick and pale with grief."

// poke asks for an acknowledgement, so that a connection that is dead is noticed.
func (p *peer) poke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		_ = p.acknowledge(p.conn, true)
	}
}

// idle reports whether everything that was sent is acknowledged, and how much has arrived.
func (p *peer) idle() (done bool, arrivals int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.queue {
		if o.id != "" {
			return false, len(p.got)
		}
	}
	return p.conn != nil, len(p.got)
}

// readArchive pages through the archive of an account, on a connection of its own, and returns the ids of the messages.
func readArchive(addr, account string) (ids []string, err error) {
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"xmpp-client"}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	user, _, _ := bytes.Cut([]byte(account), []byte("@"))
	_, err = fmt.Fprintf(c, "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"+
		"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>%s</initial-response><bind xmlns='urn:xmpp:bind:0'><tag>audit</tag></bind></authenticate>%s",
		base64.StdEncoding.EncodeToString([]byte("\x00"+string(user)+"\x00"+password)), query(""))
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(c)
	for {
		if t, err := d.Token(); err != nil {
			return nil, err
		} else if _, ok := t.(xml.StartElement); ok {
			break
		}
	}
	for {
		e, err := xmpp.ReadElement(d)
		if err != nil {
			return nil, err
		}
		if r := child(e, "result"); r != nil {
			if m := forwarded(r); m != nil {
				ids = append(ids, m.Attr("id"))
			}
		}
		fin := child(e, "fin")
		switch {
		case e.Local == "iq" && e.Attr("type") == "error", e.Local == "failure", e.Local == "error":
			return nil, fmt.Errorf("%s", e)
		case fin == nil:
		case fin.Attr("complete") == "true":
			_, err := io.WriteString(c, "</stream:stream>")
			return ids, err
		default:
			if _, err := io.WriteString(c, query(child(child(fin, "set"), "last").Text)); err != nil {
				return nil, err
			}
		}
	}
}
