package server_test

import (
	"context"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

const waitError = "<error type='wait' code='500'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"

// sender is a client with stream management that wants to know of each message what becomes of it.
type sender struct {
	c       *xmpptest.Client
	n       int      // messages
	filling string   // of each
	stored  []string // the ids of those that are stored, as the server says
	refused int
}

func newSender(c *xmpptest.Client, filling int) *sender {
	c.Send("<enable xmlns='urn:xmpp:sm:3'/>")
	c.Expect("<enabled xmlns='urn:xmpp:sm:3'/>")
	return &sender{c: c, filling: strings.Repeat("x", filling)}
}

// message sends one to juliet and asks for the count. XEP-0198 §4: a stanza is counted once it was handled; one that was not stored is answered before that.
func (s *sender) message(t *testing.T) (stored bool) {
	t.Helper()
	s.n++
	id := fmt.Sprint("m", s.n)
	s.c.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='%s'><body>%s</body></message><r xmlns='urn:xmpp:sm:3'/>", id, s.filling))
	want := fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", s.n)
	stored = true
	for {
		switch got := s.c.Read(); {
		case got.Local == "r":
		case got.String() == want && stored:
			s.stored = append(s.stored, id)
			return true
		case got.String() == want:
			s.refused++
			return false
		case stored && got.Local == "message" && strings.Contains(got.String(), " from='juliet@localhost' type='error' id='"+id+"'>") && strings.Contains(got.String(), waitError):
			stored = false
		default:
			t.Fatalf("%s is answered with %s", id, got)
		}
	}
}

// check compares both archives with what the server said, and what juliet finds waiting.
func (s *sender) check(t *testing.T, srv *xmpptest.Server) {
	t.Helper()
	list := func(owner string) (ids []string) {
		page, err := srv.DB().QueryArchive(context.Background(), jid.MustParse(owner), mam.Query{Max: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Messages {
			_, rest, _ := strings.Cut(string(m.XML), " id='")
			id, _, _ := strings.Cut(rest, "'")
			if !strings.HasSuffix(string(m.XML), "<body>"+s.filling+"</body></message>") {
				t.Errorf("%s of %s is not whole", id, owner)
			}
			ids = append(ids, id)
		}
		return ids
	}
	if got := list("juliet@localhost"); !slices.Equal(got, s.stored) {
		t.Errorf("juliet's archive has %v, want %v", got, s.stored)
	}
	// What a sender has sent it has, also when it was refused; then too it has it once.
	sent := list("romeo@localhost")
	if !slices.Equal(slices.Compact(slices.Clone(sent)), sent) {
		t.Errorf("romeo's archive has %v", sent)
	}
	sent = slices.DeleteFunc(sent, func(id string) bool { return !slices.Contains(s.stored, id) })
	if !slices.Equal(sent, s.stored) {
		t.Errorf("romeo's archive has %v of %v", sent, s.stored)
	}
	juliet := srv.Client("juliet@localhost/balcony")
	juliet.Online()
	for _, id := range s.stored {
		if e := juliet.Read(); !strings.Contains(e.String(), " id='"+id+"'") {
			t.Fatalf("juliet gets %.200s, want %s", e, id)
		}
	}
	juliet.ExpectNothing()
}

// Security promise 5 with the archive on: on a full disk a message is stored or its sender hears that it is not, queries go on, and no restart is needed.
func TestArchiveDiskFull(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) { c.Storage.DSN = "" }))
	srv.Account("juliet@localhost")
	s := newSender(srv.Client("romeo@localhost/orchard"), 20_000)
	if !s.message(t) {
		t.Fatal("refused before the disk is full")
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var unlimited syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	limit(syscall.Rlimit{Cur: 1 << 20, Max: unlimited.Max})
	defer limit(unlimited)
	for refused := 0; refused < 3; { // a connection that was given up lets its log go, so some find room after the first refusal
		if s.message(t) {
			refused = 0
		} else {
			refused++
		}
		if s.n > 500 {
			t.Fatal("the limit does not work")
		}
	}
	before := len(s.stored)
	page, err := srv.DB().QueryArchive(context.Background(), jid.MustParse("juliet@localhost"), mam.Query{Max: 1000})
	if err != nil || len(page.Messages) != before {
		t.Errorf("a query on a full disk finds %d messages, %v; want %d", len(page.Messages), err, before)
	}
	limit(unlimited)
	for range 3 {
		if !s.message(t) {
			t.Error("refused although there is room again")
		}
	}
	s.check(t, srv)
}

// Security promise 6 with the archive on: the same for a database that is gone and comes back.
func TestArchiveDatabaseDown(t *testing.T) {
	pg := pgtest.New(t, false)
	dsn := pg.Database(t)
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) {
		c.Storage = config.Storage{Driver: config.Postgres, DSN: dsn}
	}))
	srv.Account("juliet@localhost")
	s := newSender(srv.Client("romeo@localhost/orchard"), 10)
	for range 2 {
		for range 3 {
			if !s.message(t) {
				t.Error("refused while the database is there")
			}
		}
		pg.Stop(t)
		for range 3 {
			if s.message(t) {
				t.Error("stored without a database")
			}
		}
		s.c.Send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
		s.n++
		s.c.Expect("<iq type='error' id='q' from='romeo@localhost' to='romeo@localhost/orchard'><query xmlns='urn:xmpp:mam:2'/>" + waitError + "</iq>")
		pg.Start(t)
		srv.Eventually("the database is back", func() bool { return srv.Healthy(context.Background()) == nil })
	}
	if !s.message(t) {
		t.Error("refused although the database is back")
	}
	s.check(t, srv)
}
