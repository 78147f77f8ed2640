package offline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/ext/offline"

	"mellium.im/xmpp/jid"
)

func numbers(from, to int) (s []string) {
	for i := from; i < to; i++ {
		s = append(s, strconv.Itoa(i))
	}
	return s
}

func (h *host) sendNumbers(from, to int) {
	var b xmpp.Batch // one read of the sender's connection
	ctx := xmpp.WithBatch(context.Background(), &b)
	for _, n := range numbers(from, to) {
		h.Route(ctx, text(n))
	}
	b.End(ctx)
}

func check(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// A login to an empty spool asks the database once; what has a place of its own there, once more.
func TestReadsOfALogin(t *testing.T) {
	h := newHost(t, nil)
	login := func(n int) {
		t.Helper()
		h.store.set(func(s *store) { s.reads = nil })
		c := h.bind(juliet, "balcony")
		c.presence()
		check(t, "after presence", c.messages(), numbers(0, n))
		h.Unbind(context.Background(), c.Session)
	}
	login(0)
	check(t, "reads", h.store.reads, []string{"SpoolState"})
	h.sendNumbers(0, 3)
	login(3)
	check(t, "reads", h.store.reads, []string{"SpoolState", "Offline"})
	login(0)
	check(t, "reads", h.store.reads, []string{"SpoolState"})
}

// XEP-0160 §2: in order, stamped, once, to the session that becomes available.
func TestSpoolIsDeliveredInOrder(t *testing.T) {
	h := newHost(t, nil)
	start := time.Now().Add(-time.Millisecond)
	n := 2*offline.Page + 7
	h.sendNumbers(0, n)
	if got := h.spooled(); got != n {
		t.Fatalf("%d messages in the spool, want %d", got, n)
	}
	c := h.bind(juliet, "balcony")
	check(t, "before presence", c.messages(), nil)
	c.presence()
	check(t, "after presence", c.messages(), numbers(0, n))
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
	last := start
	for _, s := range c.got {
		d, ok := s.Child(xmpp.NSDelay, "delay")
		at, err := time.Parse(time.RFC3339Nano, d.Attr("stamp"))
		if !ok || d.Attr("from") != "capulet.com" || err != nil || !strings.HasSuffix(d.Attr("stamp"), "Z") || !at.After(last) || at.After(time.Now()) {
			t.Fatalf("delay in %s: %v", s, err)
		}
		last = at
		if !s.From.Equal(romeo) || !s.To.Equal(juliet) || s.Type != "chat" {
			t.Errorf("changed on the way: %s", s)
		}
	}
	h.bind(juliet, "chamber").presence()
	c.presence()
	check(t, "twice", c.messages(), numbers(0, n))
}

// RFC 6121 §8.5.2.1.1: a negative priority is none for messages.
func TestNegativePriorityReceivesNothing(t *testing.T) {
	h := newHost(t, nil)
	h.sendNumbers(0, 2)
	c := h.bind(juliet, "balcony")
	c.presence(priority("-1"))
	h.sendNumbers(2, 3)
	check(t, "with a negative priority", c.messages(), nil)
	c.presence(priority("0"))
	check(t, "with priority 0", c.messages(), numbers(0, 3))
	c.presence(priority("-1"))
	h.sendNumbers(3, 4)
	c.handle(xmpp.New(xmpp.Presence, "unavailable", jid.JID{}, c.JID()))
	h.sendNumbers(4, 5)
	c.presence(priority("5"))
	check(t, "available again", c.messages(), numbers(0, 5))
}

// Directed presence makes nobody available.
func TestDirectedPresenceReceivesNothing(t *testing.T) {
	h := newHost(t, nil)
	h.sendNumbers(0, 1)
	c := h.bind(juliet, "balcony")
	c.handle(xmpp.New(xmpp.Presence, "", romeo.Bare(), c.JID()))
	check(t, "after directed presence", c.messages(), nil)
	h.sendNumbers(1, 2)
	c.presence()
	check(t, "after presence", c.messages(), numbers(0, 2))
}

// What is not spooled, as its sender sees it.
func TestAnswersToWhatIsNotSpooled(t *testing.T) {
	h := newHost(t, nil)
	c := h.bind(romeo.Bare(), "orchard")
	body := xmpp.El("", "body").Say("hi")
	for _, m := range []struct {
		typ     string
		content []*xmpp.Element
		want    string
	}{
		{"chat", []*xmpp.Element{body, xmpp.El("urn:xmpp:hints", "no-store")}, "cancel service-unavailable"},
		{"chat", []*xmpp.Element{xmpp.El("http://jabber.org/protocol/chatstates", "composing")}, ""},
		{"groupchat", []*xmpp.Element{body, xmpp.El("urn:xmpp:hints", "store")}, "cancel service-unavailable"},
		{"headline", []*xmpp.Element{body}, ""},
		{"error", []*xmpp.Element{body}, ""},
	} {
		c.got = nil
		c.handle(xmpp.New(xmpp.Message, m.typ, juliet, romeo, m.content...))
		if got := strings.Join(c.errors(), " "); got != m.want {
			t.Errorf("%s %v: %q, want %q", m.typ, m.content, got, m.want)
		}
	}
	if n := h.spooled(); n != 0 {
		t.Errorf("%d messages in the spool", n)
	}
}

// XEP-0160 §2, step 3.
func TestFullSpool(t *testing.T) {
	h := newHost(t, limits(2))
	sender := h.bind(romeo.Bare(), "orchard")
	for range 3 {
		sender.handle(text("hi"))
	}
	check(t, "errors", sender.errors(), []string{"cancel service-unavailable"})
	if n := h.spooled(); n != 2 {
		t.Errorf("%d messages in the spool", n)
	}
}

func TestStoreFails(t *testing.T) {
	h := newHost(t, nil)
	sender := h.bind(romeo.Bare(), "orchard")
	h.store.set(func(s *store) { s.appendErr = storage.ErrUnavailable })
	sender.handle(text("0"))
	check(t, "errors", sender.errors(), []string{"wait internal-server-error"})
	h.store.set(func(s *store) { s.appendErr = nil })
	sender.handle(text("1"))

	c := h.bind(juliet, "balcony")
	h.store.set(func(s *store) { s.readErr = storage.ErrUnavailable })
	c.presence()
	check(t, "while the spool cannot be read", c.messages(), nil)
	sender.handle(text("2"))
	check(t, "live", c.messages(), nil)
	h.store.set(func(s *store) { s.readErr = nil })
	c.handle(xmpp.New(xmpp.Presence, "unavailable", jid.JID{}, c.JID()))
	c.presence()
	check(t, "at the next occasion", c.messages(), []string{"1", "2"})

	// Twice rather than never.
	c.cut()
	sender.handle(text("3"))
	h.store.set(func(s *store) { s.removeErr = storage.ErrUnavailable })
	c = h.bind(juliet, "balcony")
	c.presence()
	check(t, "when it cannot be removed", c.messages(), []string{"3"})
	h.store.set(func(s *store) { s.removeErr = nil })
	c.cut()
	c = h.bind(juliet, "balcony")
	c.presence()
	check(t, "again", c.messages(), []string{"3"})
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
}

// Two sessions that come at once share one spool.
func TestTwoSessionsAtOnce(t *testing.T) {
	h := newHost(t, nil)
	const rounds, n = 20, 10
	for round := range rounds {
		h.sendNumbers(0, n)
		a, b := h.bind(juliet, "a"), h.bind(juliet, "b")
		var wg sync.WaitGroup
		wg.Go(func() { a.presence() })
		wg.Go(func() { b.presence() })
		wg.Wait()
		if got := append(a.messages(), b.messages()...); !slices.Equal(got, numbers(0, n)) {
			t.Fatalf("round %d: a got %q, b got %q", round, a.messages(), b.messages())
		}
		a.cut()
		b.cut()
	}
}

// From a sender who goes on while sessions come and go, everything arrives once and in order.
func TestOrderBetweenSpoolAndLive(t *testing.T) {
	h := newHost(t, func(l *storage.Limits) { l.OfflineMessages = 1 << 20 })
	sender := h.bind(romeo.Bare(), "orchard")
	const n = 1000 // even all together are not too much to be held
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			sender.handle(text(strconv.Itoa(i)))
		}
	}()
	var got []string
	for last := false; !last; {
		select {
		case <-sent:
			last = true // one more session takes what is left
		default:
		}
		c := h.bind(juliet, "balcony")
		c.presence()
		h.spooled() // some time for live messages
		// The recipient goes away politely: what is sent from here on is spooled.
		c.handle(xmpp.New(xmpp.Presence, "unavailable", jid.JID{}, c.JID()))
		c.cut()
		got = append(got, c.messages()...)
	}
	check(t, "errors", sender.errors(), nil)
	for i := range max(n, len(got)) {
		if i >= len(got) || got[i] != strconv.Itoa(i) {
			t.Fatalf("%d messages arrived; from the %dth on they are %.5q", len(got), i, got[min(i, len(got)):])
		}
	}
}

// A message that is being written while the session comes is neither left behind nor overtaken.
func TestAppendUnderWayIsWaitedFor(t *testing.T) {
	h := newHost(t, nil)
	gate := make(chan struct{})
	h.store.gate, h.store.appended = gate, make(chan struct{}, 10)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		h.send(text("0"))
	}()
	<-h.store.appended
	c := h.bind(juliet, "balcony")
	online := make(chan struct{})
	go func() {
		defer close(online)
		c.presence()
	}()
	// Once the session shows, a further message waits in the spool for its turn.
	h.Eventually(func() bool { return c.Presence() != nil })
	second := make(chan struct{})
	go func() {
		defer close(second)
		h.send(text("1"))
	}()
	<-h.store.appended
	check(t, "before the first one is stored", c.messages(), nil)
	close(gate)
	<-sent
	<-second
	<-online
	check(t, "then", c.messages(), []string{"0", "1"})
}

// A message whose recipients were chosen before a session came, and which gets here after that one has received the spool.
func TestMessageIsLateForTheSpool(t *testing.T) {
	var c *client
	var h *host
	h = newHost(t, nil, before(func(r *xmpp.Registry) {
		r.Undelivered(func(_ context.Context, d *xmpp.Delivery) error {
			if body, _ := d.Stanza.Child("", "body"); body.Text() == "1" {
				c = h.bind(juliet, "balcony")
				c.presence()
			}
			return nil
		})
	}))
	h.sendNumbers(0, 2)
	check(t, "messages", c.messages(), numbers(0, 2))
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
}

// spy is a server that tells when the module looks at an account's sessions.
type spy struct {
	xmpp.Server
	sessions func()
}

func (s *spy) Sessions(bare jid.JID) []xmpp.Session {
	if f := s.sessions; f != nil {
		s.sessions = nil
		f()
	}
	return s.Server.Sessions(bare)
}

// The same, but the session is about to receive the spool: it waits for the message.
func TestMessageIsInTimeForTheSpool(t *testing.T) {
	s := new(spy)
	h := newHost(t, nil, before(func(r *xmpp.Registry) {
		s.Server, r.Server = r.Server, s
	}))
	h.sendNumbers(0, 1)
	c := h.bind(juliet, "balcony")
	online := make(chan struct{})
	s.sessions = func() {
		go func() {
			defer close(online)
			c.presence()
		}()
		h.Eventually(func() bool { return c.Presence() != nil })
	}
	h.sendNumbers(1, 2)
	<-online
	check(t, "messages", c.messages(), numbers(0, 2))
}

// beginSlow makes a session available that does not read what its spool, messages 0 to n, holds for it. end lets it read on.
func (h *host) beginSlow(resource string, n int) (c *client, end func()) {
	h.sendNumbers(0, n)
	c = h.bind(juliet, resource, func(c *client) { c.slow, c.waiting = true, make(chan struct{}) })
	online := make(chan struct{})
	go func() {
		defer close(online)
		c.presence()
	}()
	<-c.waiting
	return c, func() {
		c.mu.Lock()
		c.slow = false
		c.mu.Unlock()
		c.read()
		<-online
	}
}

// lose breaks the connection of a session, which is still in the table: what it had not written is in left.
func (c *client) lose() (left []*xmpp.Stanza) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = "lost"
	left = c.queue
	close(c.wake)
	c.wake = make(chan struct{})
	return left
}

// A session that receives its spool slowly costs its correspondents nothing: what they send meanwhile is as safe as the spool, without a bound
// of its own and without an error.
func TestLiveMessagesJoinTheSpoolOfASlowReader(t *testing.T) {
	h := newHost(t, nil)
	sender := h.bind(romeo.Bare(), "orchard")
	c, end := h.beginSlow("balcony", 1)
	const size, n = 32 << 10, 2 * offline.MaxHeld / (32 << 10)
	want := []string{"0"}
	for i := range n {
		want = append(want, strconv.Itoa(i)+strings.Repeat(".", size))
		sender.handle(text(want[i+1]))
	}
	check(t, "errors", sender.errors(), nil)
	if got := h.spooled(); got != n+1 {
		t.Errorf("%d messages are stored, want %d", got, n+1)
	}
	end()
	check(t, "afterwards", c.messages(), want)
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
}

// What must not be stored waits in memory, bounded, and its sender hears of what does not fit. It keeps its place among the others.
func TestMessagesThatAreNotStoredKeepTheirPlace(t *testing.T) {
	h := newHost(t, nil)
	sender := h.bind(romeo.Bare(), "orchard")
	c, end := h.beginSlow("balcony", 1)
	const size = 32 << 10
	want := []string{"0"}
	for i := range 2 * offline.MaxHeld / size {
		body := strconv.Itoa(i+1) + strings.Repeat(".", size)
		refused := len(sender.errors())
		sender.handle(xmpp.New(xmpp.Message, "groupchat", c.JID(), romeo, xmpp.El("", "body").Say(body)))
		if len(sender.errors()) == refused {
			want = append(want, body)
		}
		sender.handle(text("between"))
		want = append(want, "between")
	}
	if errs := sender.errors(); len(errs) < offline.MaxHeld/size || slices.ContainsFunc(errs, func(s string) bool { return s != "cancel service-unavailable" }) {
		t.Errorf("errors %q", errs)
	}
	end()
	if got := c.messages(); !slices.Equal(got, want) {
		t.Errorf("got %.5q, want %.5q", got, want)
	}
}

// The other sessions of the account do not wait for the one that receives the spool.
func TestOtherSessionsDoNotWaitForTheSpool(t *testing.T) {
	h := newHost(t, nil)
	desk := h.bind(juliet, "desk")
	desk.presence(priority("-1"))
	c, end := h.beginSlow("balcony", 3)
	h.send(text("desk").WithTo(desk.JID()))
	check(t, "to a full JID", desk.messages(), []string{"desk"})
	desk.presence(priority("1")) // from here on it is one that may have to receive the spool
	h.send(text("3"))
	check(t, "to the account, while its spool may be next", desk.messages(), []string{"desk"})
	end()
	check(t, "the session with the spool", c.messages(), numbers(0, 4))
	check(t, "the other session", desk.messages(), []string{"desk", "3"})
}

// A session that becomes available while the connection of the one that owns the spool is lost, and that one has not let go of it.
func TestSpoolGoesToTheSessionThatCameWhileItsOwnerWasLost(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	again := false
	h := newHost(t, nil, before(func(r *xmpp.Registry) {
		r.Incoming(func(_ context.Context, d *xmpp.Delivery) error {
			if d.Again && !again {
				again = true
				close(entered)
				<-goOn
			}
			return nil
		})
	}))
	h.sendNumbers(0, 3)
	a := h.bind(juliet, "a", func(c *client) { c.slow, c.waiting = true, make(chan struct{}) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.presence()
	}()
	<-a.waiting
	h.send(xmpp.New(xmpp.Message, "chat", juliet, romeo, xmpp.El("http://jabber.org/protocol/chatstates", "composing"))) // waits in memory
	left := a.lose()
	<-done
	go h.Unbind(context.Background(), a.Session) // lets go of the spool: what waits in memory comes back first
	<-entered
	b := h.bind(juliet, "b")
	b.presence()
	close(goOn)
	h.Eventually(func() bool { return len(b.messages()) == 3 })
	for _, s := range left {
		h.Redeliver(context.Background(), a.Bare(), s)
	}
	check(t, "messages", b.messages(), numbers(0, 3))
	h.Eventually(func() bool { return h.spooled() == 0 })
}

// When the database answers again, a session that stayed online gets its spool with its next stanza, and nothing overtakes it.
func TestSpoolIsDeliveredWhenTheDatabaseIsBack(t *testing.T) {
	for what, fail := range map[string]func(*store, error){
		"read":   func(s *store, err error) { s.readErr = err },
		"remove": func(s *store, err error) { s.removeErr = err },
	} {
		t.Run(what, func(t *testing.T) {
			h := newHost(t, nil)
			h.sendNumbers(0, 2)
			h.store.set(func(s *store) { fail(s, context.DeadlineExceeded) })
			c := h.bind(juliet, "a")
			c.presence()
			h.store.set(func(s *store) { fail(s, nil) })
			h.sendNumbers(2, 3)
			c.presence()
			check(t, "messages", c.messages(), numbers(0, 3))
			if h.spooled() != 0 {
				t.Error("messages are left in the spool")
			}
			h.sendNumbers(3, 4)
			check(t, "live again", c.messages(), numbers(0, 4))
		})
	}
}

// A client that sends nothing gets it, too.
func TestSpoolIsTriedAgainByItself(t *testing.T) {
	h := newHost(t, nil, func(_ *host, m *offline.Module) { offline.SetPause(m, time.Millisecond) })
	h.sendNumbers(0, 2)
	h.store.set(func(s *store) { s.readErr = context.DeadlineExceeded })
	c := h.bind(juliet, "a")
	c.presence()
	check(t, "while the spool cannot be read", c.messages(), nil)
	h.store.set(func(s *store) { s.readErr = nil })
	h.Eventually(func() bool { return len(c.messages()) == 2 && h.spooled() == 0 })
	check(t, "messages", c.messages(), numbers(0, 2))
}

// While the database does not answer, live messages reach a session that is there.
func TestLiveMessagesWhileTheDatabaseIsAway(t *testing.T) {
	h := newHost(t, nil)
	sender := h.bind(romeo.Bare(), "orchard")
	h.sendNumbers(0, 1)
	h.store.set(func(s *store) { s.readErr, s.appendErr = context.DeadlineExceeded, context.DeadlineExceeded })
	c := h.bind(juliet, "a")
	c.presence()
	sender.handle(text("1"))
	check(t, "errors", sender.errors(), nil)
	check(t, "live", c.messages(), []string{"1"})
	h.store.set(func(s *store) { s.readErr = nil })
	c.presence()
	check(t, "with the spool", c.messages(), []string{"1", "0"})
}

// XEP-0198: nothing leaves the spool for a client that is away. When it is back, the delivery goes on where it stood.
func TestSpoolWaitsForAClientThatIsAway(t *testing.T) {
	h := newHost(t, nil)
	n := 2*offline.Page + 7
	h.sendNumbers(0, n)
	c := h.bind(juliet, "balcony", func(c *client) { c.slow, c.away = true, true })
	c.presence()
	if got := h.spooled(); got != n {
		t.Errorf("%d messages in the spool, want %d", got, n)
	}
	h.sendNumbers(n, n+1)
	c.mu.Lock()
	c.slow, c.away = false, false
	c.mu.Unlock()
	c.read() // what the resumed stream begins with
	c.handle(xmpp.New(xmpp.Message, "chat", romeo, c.JID()))
	check(t, "messages", c.messages(), numbers(0, n+1))
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
}

// A client that does not come back: what it had been given is delivered once to the next one.
func TestClientThatIsAwayDoesNotComeBack(t *testing.T) {
	h := newHost(t, nil)
	h.sendNumbers(0, 3)
	a := h.bind(juliet, "a", func(c *client) { c.slow, c.away = true, true })
	a.presence()
	h.sendNumbers(3, 4)
	b := h.bind(juliet, "b")
	b.presence() // the spool is not a's any more
	check(t, "the next one", b.messages(), numbers(0, 4))
	a.cut()
	check(t, "after the first one has ended", b.messages(), numbers(0, 4))

	a = h.bind(juliet, "a", func(c *client) { c.slow, c.away = true, true })
	b.cut()
	h.sendNumbers(4, 5)
	a.presence()
	a.cut()
	b = h.bind(juliet, "b")
	b.presence()
	check(t, "when nobody was there", b.messages(), numbers(4, 5))
}

// A server that stops does not wait for a database that does not answer.
func TestCancelledDeliveryEnds(t *testing.T) {
	h := newHost(t, nil)
	h.sendNumbers(0, 1)
	hang := make(chan struct{})
	h.store.set(func(s *store) { s.hang = hang })
	c := h.bind(juliet, "balcony")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Handle(ctx, &xmpp.Outgoing{Stanza: xmpp.New(xmpp.Presence, "", jid.JID{}, c.JID()), Sender: c.Session})
	}()
	<-hang
	cancel()
	<-done
	h.store.set(func(s *store) { s.hang = nil })
	c.cut()
	c = h.bind(juliet, "balcony")
	c.presence()
	check(t, "the next one", c.messages(), numbers(0, 1))
}

// What can no longer be read leaves the spool like the rest, wherever it stands.
func TestUnreadableMessagesLeaveTheSpool(t *testing.T) {
	h := newHost(t, nil)
	h.sendNumbers(0, 4)
	h.store.set(func(s *store) { s.unreadable = map[int64]bool{1: true, 3: true, 4: true} })
	c := h.bind(juliet, "balcony")
	c.presence()
	check(t, "messages", c.messages(), []string{"1"})
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
}

// A spool that is larger than an outbox does not end the session that receives it.
func TestLargeSpoolWaitsForTheReader(t *testing.T) {
	h := newHost(t, nil)
	const size = 20 << 10
	var want []string
	for i := range 100 {
		want = append(want, strconv.Itoa(i)+strings.Repeat(".", size))
		h.send(text(want[i]))
	}
	c := h.bind(juliet, "balcony", func(c *client) { c.slow, c.waiting = true, make(chan struct{}) })
	h.reading(c)
	if got := c.messages(); !slices.Equal(got, want) {
		t.Errorf("%d of %d messages", len(got), len(want))
	}
	if c.largest > offline.Portion+size {
		t.Errorf("%d bytes were queued at once", c.largest)
	}
}

// A session that ends while it receives the spool: what it had taken and not written comes back, and the order stays.
func TestSessionEndsInTheMiddle(t *testing.T) {
	for _, accept := range []int{0, 1, offline.Page - 1, offline.Page, offline.Page + 3} {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("after %d, slow %v", accept, slow), func(t *testing.T) {
				h := newHost(t, nil)
				n := 2*offline.Page + 7
				h.sendNumbers(0, n)
				a := h.bind(juliet, "a", func(c *client) { c.accept, c.slow, c.waiting = accept, slow, make(chan struct{}) })
				h.reading(a)
				a.cut()
				b := h.bind(juliet, "b")
				b.presence()
				// A page that was not taken whole is delivered again.
				got := a.messages()
				got = append(got[:len(got)/offline.Page*offline.Page], b.messages()...)
				check(t, "both", got, numbers(0, n))
				if h.spooled() != 0 {
					t.Error("messages are left in the spool")
				}
			})
		}
	}
}

// When the first of two sessions does not take the spool, the other one gets it.
func TestAnotherSessionTakesOver(t *testing.T) {
	h := newHost(t, nil)
	n := offline.Page + 5
	h.sendNumbers(0, n)
	a := h.bind(juliet, "a", func(c *client) { c.slow, c.waiting = true, make(chan struct{}) })
	online := make(chan struct{})
	go func() {
		defer close(online)
		a.presence()
	}()
	<-a.waiting
	b := h.bind(juliet, "b")
	b.presence()
	check(t, "while the first one receives it", b.messages(), nil)
	h.sendNumbers(n, n+1)
	check(t, "a live message meanwhile", b.messages(), nil)
	a.lose()
	<-online
	check(t, "after the first one has ended", b.messages(), numbers(0, n+1))
	a.cut() // gives back a page that b has
	check(t, "what the first one gives back", b.messages(), numbers(0, n+1))
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
}

// The same, but the other session has not become available when the first one ends.
func TestAnotherSessionComesNext(t *testing.T) {
	h := newHost(t, nil)
	h.sendNumbers(0, 3)
	a := h.bind(juliet, "a", func(c *client) { c.slow, c.waiting = true, make(chan struct{}) })
	b := h.bind(juliet, "b")
	online := make(chan struct{})
	h.Registry().Outgoing(func(_ context.Context, o *xmpp.Outgoing) error {
		if o.Sender == xmpp.Session(b.Session) {
			a.lose()
			<-online
		}
		return nil
	})
	go func() {
		defer close(online)
		a.presence()
	}()
	<-a.waiting
	b.presence()
	check(t, "the second session", b.messages(), numbers(0, 3))
}

// A message from the spool that comes back after the spool has let it go is spooled again, as old as it is.
func TestMessageComesBack(t *testing.T) {
	h := newHost(t, nil)
	h.send(text("0"))
	a := h.bind(juliet, "a")
	a.presence()
	if len(a.messages()) != 1 {
		t.Fatal("not delivered")
	}
	first := a.got[len(a.got)-1]
	h.Unbind(t.Context(), a.Session)
	h.Redeliver(t.Context(), juliet, first)
	b := h.bind(juliet, "b")
	b.presence()
	if len(b.got) != 1 || b.got[0].String() != first.String() {
		t.Errorf("got %v, want %s", b.got, first)
	}

	// A live message that comes back gets a stamp like any other.
	h.Unbind(t.Context(), b.Session)
	h.Redeliver(t.Context(), juliet, text("1"))
	c := h.bind(juliet, "c")
	c.presence()
	check(t, "live one", c.messages(), []string{"1"})
	if !c.got[0].Has(xmpp.NSDelay, "delay") {
		t.Error("no delay")
	}
}

// A message that comes back and that nobody takes while the spool is delivered goes out with it.
func TestMessageComesBackMeanwhile(t *testing.T) {
	h := newHost(t, nil)
	h.Registry().Incoming(func(_ context.Context, d *xmpp.Delivery) error {
		if d.Again {
			d.Targets = nil
		}
		return nil
	})
	h.sendNumbers(0, 1)
	c := h.bind(juliet, "balcony", func(c *client) { c.slow, c.waiting = true, make(chan struct{}) })
	online := make(chan struct{})
	go func() {
		defer close(online)
		c.presence()
	}()
	<-c.waiting
	h.Redeliver(t.Context(), juliet, text("1"))
	c.mu.Lock()
	c.slow = false
	c.mu.Unlock()
	c.read()
	<-online
	check(t, "messages", c.messages(), numbers(0, 2))
}

// A presence that another module refuses makes nobody available; messages are not held for ever.
func TestPresenceIsRefused(t *testing.T) {
	refuse := true
	after := func(h *host) {
		h.Registry().Outgoing(func(_ context.Context, o *xmpp.Outgoing) error {
			if refuse && o.Stanza.Kind == xmpp.Presence {
				return xmpp.ErrPolicyViolation
			}
			return nil
		})
	}
	for _, end := range []string{"next stanza", "end of the session", "another session"} {
		t.Run(end, func(t *testing.T) {
			refuse = true
			h := newHost(t, nil)
			after(h)
			h.sendNumbers(0, 1)
			c := h.bind(juliet, "balcony")
			c.presence()
			h.sendNumbers(1, 3)
			refuse = false
			switch end {
			case "next stanza":
				c.handle(xmpp.New(xmpp.Message, "chat", romeo, c.JID()))
				if n := h.spooled(); n != 3 {
					t.Errorf("%d messages in the spool", n)
				}
				c.presence()
			case "end of the session":
				c.cut()
				if n := h.spooled(); n != 3 {
					t.Errorf("%d messages in the spool", n)
				}
				c = h.bind(juliet, "balcony")
				c.presence()
			case "another session":
				o := h.bind(juliet, "chamber")
				o.presence()
				c.cut()
				c = o
			}
			check(t, "messages", c.messages(), numbers(0, 3))
		})
	}
}

// A session that was replaced by one with the same resource while it sent its presence.
func TestPresenceOfAReplacedSession(t *testing.T) {
	var old, new *client
	h := newHost(t, nil, before(func(r *xmpp.Registry) {
		r.Outgoing(func(_ context.Context, o *xmpp.Outgoing) error {
			if old != nil && new == nil && o.Sender == xmpp.Session(old.Session) {
				new = old.h.bind(juliet, "balcony") // ends old before the spool's filter sees its presence
			}
			return nil
		})
	}))
	h.sendNumbers(0, 2)
	c := h.bind(juliet, "balcony")
	old = c
	c.presence()
	h.sendNumbers(2, 3)
	if n := h.spooled(); n != 3 {
		t.Errorf("%d messages in the spool", n)
	}
	new.presence()
	check(t, "old session", c.messages(), nil)
	check(t, "new session", new.messages(), numbers(0, 3))
}

// XEP-0203 §5: a delay in this server's name is this server's.
func TestForgedDelays(t *testing.T) {
	h := newHost(t, nil)
	d := func(from string) *xmpp.Element {
		return xmpp.El(xmpp.NSDelay, "delay", "from", from, "stamp", "2002-09-10T23:08:25Z")
	}
	body := xmpp.El("", "body").Say("hi")
	forged := xmpp.New(xmpp.Message, "chat", juliet, romeo, d("capulet.com"), body, d("CAPULET.com"), d("montague.net"), d("coven@macbeth.lit"), d("elsewhere.lit"))
	delays := func(s *xmpp.Stanza) (from []string) {
		for _, c := range s.Children() {
			if c.Space == xmpp.NSDelay {
				from = append(from, c.Attr("from"))
			}
		}
		return from
	}
	c := h.bind(juliet, "balcony")
	h.send(forged) // as from another server
	c.presence()
	h.send(forged)
	if len(c.got) != 2 {
		t.Fatalf("got %v", c.got)
	}
	check(t, "spooled", delays(c.got[0]), []string{"coven@macbeth.lit", "elsewhere.lit", "capulet.com"})
	if last := c.got[0].Children(); last[len(last)-1].Attr("stamp") == "2002-09-10T23:08:25Z" {
		t.Error("the stamp is the sender's")
	}
	check(t, "live", delays(c.got[1]), []string{"coven@macbeth.lit", "elsewhere.lit"})

	// To another server, too, nobody speaks in our name.
	var out []*xmpp.Stanza
	h.SetRemote(func(_ context.Context, s *xmpp.Stanza) error {
		out = append(out, s)
		return nil
	})
	sender := h.bind(romeo.Bare(), "orchard")
	sender.handle(forged.WithTo(jid.MustParse("nurse@elsewhere.lit")))
	check(t, "remote", delays(out[0]), []string{"coven@macbeth.lit", "elsewhere.lit"})

	p := xmpp.New(xmpp.Presence, "", juliet, romeo, d("capulet.com"), d("romeo@montague.net/orchard"))
	h.send(p)
	check(t, "presence", delays(c.got[len(c.got)-1]), []string{"romeo@montague.net/orchard"})
}

type blocks struct {
	peer string
	err  error
}

func (b *blocks) Blocks(_ context.Context, account, peer jid.JID) (bool, error) {
	return account.Equal(juliet) && peer.Bare().String() == b.peer, b.err
}

// XEP-0191 §3.3: not even what was sent before.
func TestBlockedSendersMessagesAreNotDelivered(t *testing.T) {
	b := &blocks{err: errors.New("database is gone")}
	h := newHost(t, nil, func(_ *host, m *offline.Module) { m.UseBlocking(b) })
	h.sendNumbers(0, 2)
	h.send(text("nurse").WithFrom(jid.MustParse("nurse@capulet.com/x")))
	c := h.bind(juliet, "balcony")
	c.presence()
	check(t, "while it is not known who is blocked", c.messages(), nil)
	c.cut()
	b.err, b.peer = nil, "romeo@montague.net"
	c = h.bind(juliet, "balcony")
	c.presence()
	check(t, "others", c.messages(), []string{"nurse"})
	if h.spooled() != 0 {
		t.Error("messages are left in the spool")
	}
}

func TestFeature(t *testing.T) {
	if f := newHost(t, nil).Registry().Features[xmpp.ToServer]; !slices.Contains(f, "msgoffline") {
		t.Errorf("features %q", f)
	}
}
