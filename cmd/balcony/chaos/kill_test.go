package chaos

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp"
)

// plainClient is a client of the old kind: it binds a resource, reads offline messages, and may not know what an archive is.
type plainClient struct {
	t    *testing.T
	conn net.Conn
	d    *xml.Decoder
	in   int // stanzas that came since stream management was enabled
}

// connect logs in; managed enables stream management.
func (s *server) connect(name, resource string, managed bool) *plainClient {
	s.t.Helper()
	return s.connectTo("localhost", name, resource, managed, silence)
}

// connectTo is connect for a domain; patience is how long the client waits for each read.
func (s *server) connectTo(domain, name, resource string, managed bool, patience time.Duration) *plainClient {
	s.t.Helper()
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &plainClient{t: s.t, conn: tls.Client(timely{raw, patience}, &tls.Config{InsecureSkipVerify: true, ServerName: domain, NextProtos: []string{"xmpp-client"}})}
	s.t.Cleanup(func() { _ = raw.Close() })
	c.write("<stream:stream to='" + domain + "' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>" +
		"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>" +
		base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+password)) + "</initial-response></authenticate>")
	c.d = xml.NewDecoder(c.conn)
	for {
		t, err := c.d.Token()
		if err != nil {
			s.t.Fatal(err)
		}
		if _, ok := t.(xml.StartElement); ok {
			break
		}
	}
	c.until("success")
	c.write("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + resource + "</resource></bind></iq>")
	c.until("iq")
	if managed {
		c.write("<enable xmlns='" + nsSM + "'/>")
		c.until("enabled")
		c.in = 0
	}
	return c
}

func (c *plainClient) write(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// next is the next element; an error is the end of the connection.
func (c *plainClient) next() (*xmpp.Element, error) {
	e, err := xmpp.ReadElement(c.d)
	if err == nil && (e.Local == "message" || e.Local == "presence" || e.Local == "iq") {
		c.in++
	}
	return e, err
}

func (c *plainClient) until(local string) *xmpp.Element {
	c.t.Helper()
	for {
		e, err := c.next()
		if err != nil {
			c.t.Fatal(err)
		}
		if e.Local == local {
			return e
		}
	}
}

// spool are the messages that come with initial presence: their ids, and their stanza-ids.
func (c *plainClient) spool() (ids, stanzaIDs []string) {
	c.t.Helper()
	c.write("<presence/><iq type='get' id='until'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		e, err := c.next()
		if err != nil {
			c.t.Fatal(err)
		}
		switch {
		case e.Local == "iq" && e.Attr("id") == "until":
			return ids, stanzaIDs
		case e.Local == "message":
			ids = append(ids, e.Attr("id"))
			if s := child(e, "stanza-id"); s != nil {
				stanzaIDs = append(stanzaIDs, s.Attr("id"))
			}
		}
	}
}

// archive pages through the whole archive.
func (c *plainClient) archive() (ids, archiveIDs []string) {
	c.t.Helper()
	for after, complete := "", false; !complete; {
		c.write("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>30</max><after>" + after + "</after></set></query></iq>")
		for {
			e, err := c.next()
			if err != nil {
				c.t.Fatal(err)
			}
			if r := child(e, "result"); e.Local == "message" && r != nil {
				after = r.Attr("id")
				archiveIDs = append(archiveIDs, after)
				ids = append(ids, child(child(r, "forwarded"), "message").Attr("id"))
			}
			if e.Local == "iq" && e.Attr("id") == "q" {
				complete = child(e, "fin").Attr("complete") == "true"
				break
			}
		}
	}
	return ids, archiveIDs
}

// Promise 1, and what becomes of a message that the client had not acknowledged when the server was killed: SIGKILL at some moment while romeo
// sends. What he was told is handled is in both archives once, in his order; juliet, whose client reads no archive, gets from the spool what she had
// not acknowledged, every message once and under the id that her archive has it under.
func TestKillWithArchive(t *testing.T) {
	for _, db := range []struct {
		name string
		dsn  func(*testing.T) string
	}{
		{"SQLite", func(*testing.T) string { return "" }},
		{"PostgreSQL", func(t *testing.T) string { return pgtest.Start(t) }},
	} {
		t.Run(db.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, db.dsn(t))
			s.start()
			s.addAccount("romeo@localhost")
			s.addAccount("juliet@localhost")
			var all []string // what was acknowledged to romeo, of all rounds
			rounds := 2
			if *long {
				rounds = 10
			}
			for round := range rounds {
				acknowledged, got := s.killWhileSending(round)
				all = append(all, acknowledged...)
				s.start()
				juliet := s.connect("juliet", fmt.Sprint("after", round), false)
				ids, stanzaIDs := juliet.spool()
				if d := doubled(stanzaIDs); d != "" || len(stanzaIDs) != len(ids) {
					t.Errorf("round %d: %d messages of the spool have %d stanza-ids; %q is there twice", round, len(ids), len(stanzaIDs), d)
				}
				for _, id := range acknowledged {
					if !slices.Contains(got, id) && !slices.Contains(ids, id) {
						t.Errorf("round %d: message %s was acknowledged to its sender, and its recipient neither acknowledged it nor gets it", round, id)
					}
				}
				if !inOrder(ids) {
					t.Errorf("round %d: the spool is not in order: %v", round, ids)
				}
				kept, archiveIDs := juliet.archive()
				for _, id := range stanzaIDs {
					if !slices.Contains(archiveIDs, id) {
						t.Errorf("round %d: stanza-id %s is none of the archive", round, id)
					}
				}
				sent, _ := s.connect("romeo", fmt.Sprint("after", round), false).archive()
				// What was not acknowledged may be in one archive alone: the kill came between its two transactions, and romeo's client sends it again.
				for _, archive := range [][]string{kept, sent} {
					if d := doubled(archive); d != "" {
						t.Errorf("round %d: %s is archived twice", round, d)
					}
					if got := slices.DeleteFunc(slices.Clone(archive), func(id string) bool { return !slices.Contains(all, id) }); !slices.Equal(got, all) {
						t.Errorf("round %d: of the acknowledged messages %v, the archive has %v", round, all, got)
					}
				}
				// What she got is not there again, also after a restart.
				s.term()
				s.start()
				if ids, _ := s.connect("juliet", "again", false).spool(); len(ids) > 0 {
					t.Errorf("round %d: the spool is not empty: %v", round, ids)
				}
			}
			if len(all) < 20 {
				t.Errorf("%d messages were acknowledged", len(all))
			}
		})
	}
}

func doubled(list []string) string {
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if seen[s] {
			return s
		}
		seen[s] = true
	}
	return ""
}

// inOrder reports whether the numbers behind the dash grow.
func inOrder(ids []string) bool {
	last := -1
	for _, id := range ids {
		_, n, _ := strings.Cut(id, "-")
		i, err := strconv.Atoi(n)
		if err != nil || i <= last {
			return false
		}
		last = i
	}
	return true
}

// killWhileSending kills the server while romeo sends, once it has acknowledged some messages. It returns what was acknowledged to him, and what
// juliet acknowledged.
func (s *server) killWhileSending(round int) (acknowledged, got []string) {
	juliet := s.connect("juliet", fmt.Sprint("balcony", round), true)
	juliet.write("<presence/>")
	romeo := s.connect("romeo", fmt.Sprint("orchard", round), true)
	arrived := make(chan []string)
	go func() {
		var mine []string
		for {
			e, err := juliet.next()
			if err != nil {
				break
			}
			if e.Local != "message" {
				continue
			}
			if mine = append(mine, e.Attr("id")); len(mine) == 7+round {
				got = slices.Clone(mine) // she acknowledges no more than these
				if _, err := fmt.Fprintf(juliet.conn, "<a xmlns='%s' h='%d'/>", nsSM, juliet.in); err != nil {
					break
				}
			}
		}
		arrived <- got
	}()
	sender := make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			if _, err := fmt.Fprintf(romeo.conn, "<message to='juliet@localhost' type='chat' id='%d-%d'><body>%d</body></message><r xmlns='%s'/>", round, n, n, nsSM); err != nil {
				break
			}
		}
		sender <- n
	}()
	h := 0
	for h < 30+20*round {
		e, err := romeo.next()
		if err != nil {
			s.t.Error(err)
			break
		}
		if e.Local == "a" {
			h, _ = strconv.Atoi(e.Attr("h"))
		}
	}
	s.kill()
	for { // what was on its way
		e, err := romeo.next()
		if err != nil {
			break
		}
		if e.Local == "a" {
			h, _ = strconv.Atoi(e.Attr("h"))
		}
	}
	<-sender
	for n := range h {
		acknowledged = append(acknowledged, fmt.Sprintf("%d-%d", round, n))
	}
	return acknowledged, <-arrived
}
