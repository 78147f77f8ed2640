package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/stream"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
)

// fakeStream is a session's end that says nothing by itself.
type fakeStream struct {
	t       *testing.T
	s       *Server
	over    stream.Transport
	events  []stream.Event
	err     error         // why Receive ended
	done    chan struct{} // closed then
	stalled bool
	sid     string
	rid     int
}

// boshWithout makes a session whose stream is only what the test makes of it.
func boshWithout(t *testing.T, attrs string) *fakeStream {
	f := &fakeStream{t: t, done: make(chan struct{}), rid: 1000}
	f.s = New(DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), healthy)
	f.s.HandleStreams(Streams{Attach: func(over stream.Transport, _ auth.Channel) error {
		f.over = over
		go func() {
			defer close(f.done)
			over.SetLimits(stream.DefaultLimits())
			for {
				ev, _, _, err := over.Receive()
				if err != nil {
					f.err = err
					return
				}
				if ev.Kind == stream.Open {
					_ = over.Open(stream.Header{From: "localhost", ID: "x", Version: "1.0"})
					_ = over.Flush()
					over.Begin(stream.Begin{Limit: 1 << 20, Stall: func() { f.stalled = true }, Unstall: func() { f.stalled = false }, Drained: func(error) {}, Alive: func() {}})
				}
				f.events = append(f.events, ev)
			}
		}()
		return nil
	}})
	w := f.post(attrs, "to='localhost'", "")
	_, after, _ := strings.Cut(w, "sid='")
	f.sid, _, _ = strings.Cut(after, "'")
	if f.sid == "" {
		t.Fatal(w)
	}
	return f
}

func (f *fakeStream) post(attrs, more, content string) string {
	return f.postWithin(context.Background(), attrs, more, content)
}

func (f *fakeStream) postWithin(ctx context.Context, attrs, more, content string) string {
	f.rid++
	sid := ""
	if f.sid != "" {
		sid = "sid='" + f.sid + "'"
	}
	body := fmt.Sprintf("<body rid='%d' %s %s %s ver='1.6' xmlns='http://jabber.org/protocol/httpbind'>%s</body>", f.rid, sid, attrs, more, content)
	r := httptest.NewRequest(http.MethodPost, "https://localhost/http-bind", strings.NewReader(body))
	w := httptest.NewRecorder()
	f.s.public.ServeHTTP(w, r.WithContext(ctx))
	return w.Body.String()
}

// is reports whether the session has ended for err.
func (f *fakeStream) is(err error) bool {
	synctest.Wait()
	select {
	case <-f.done:
		return errors.Is(f.err, err)
	default:
		return err == nil
	}
}

// TestBOSHTimes: waiting, inactivity and pauses (XEP-0124 §8.2, §10).
func TestBOSHTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := boshWithout(t, "wait='20'")
		start := time.Now()
		if w := f.post("", "", ""); !strings.HasPrefix(w, "<body xmlns=") || time.Since(start) != 20*time.Second {
			t.Errorf("an empty answer after %s: %s", time.Since(start), w)
		}
		time.Sleep(59 * time.Second)
		if !f.is(nil) {
			t.Fatalf("ended by inactivity too soon: %v", f.err)
		}
		// A pause lets it be away for longer, and is answered at once.
		start = time.Now()
		if w := f.post("", "pause='120'", ""); time.Since(start) != 0 || strings.Contains(w, "terminate") {
			t.Errorf("pause answered after %s: %s", time.Since(start), w)
		}
		time.Sleep(119 * time.Second)
		if !f.is(nil) {
			t.Fatalf("ended in its pause: %v", f.err)
		}
		f.post("", "", "") // the pause is over with the next request
		f.post("", "pause='121'", "")
		time.Sleep(59 * time.Second)
		if !f.is(nil) {
			t.Fatalf("ended too soon: %v", f.err)
		}
		time.Sleep(2 * time.Second)
		if !f.is(errInactive) {
			t.Fatalf("not ended by inactivity after a pause that is too long: %v", f.err)
		}
		f.over.Close()
		if w := f.post("", "", ""); !strings.Contains(w, "condition='item-not-found'") {
			t.Error(w)
		}
	})
}

// TestBOSHUnacknowledged: what went out with an answer that the client does not have for sure is not lost (XEP-0124 §9, §14.3).
func TestBOSHUnacknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		message := func(id string) stream.Sent {
			st := xmpp.New(xmpp.Message, "chat", jid.MustParse("a@b"), jid.MustParse("c@d"), xmpp.El("", "body").Say("x"))
			st.ID = id
			return stream.Sent{Stanza: st}
		}
		for _, acks := range []string{"", "ack='1'"} {
			f := boshWithout(t, acks)
			unacknowledged := func() string {
				var ids []string
				for _, st := range f.over.Unacknowledged() {
					ids = append(ids, st.ID)
				}
				return strings.Join(ids, " ")
			}
			send := func(id string) {
				if err := errors.Join(f.over.Send(message(id)), f.over.Flush()); err != nil {
					t.Error(err)
				}
			}
			answer := make(chan string, 1)
			go func() { answer <- f.post("", "", "") }()
			synctest.Wait()
			send("1")
			if w := <-answer; !strings.Contains(w, "id='1'") || f.stalled {
				t.Fatalf("%s, stalled %t", w, f.stalled)
			}
			if got := unacknowledged(); got != "1" {
				t.Errorf("%q", got)
			}
			send("2") // nothing is open that it could go with
			if !f.stalled {
				t.Error("the outbox does not know")
			}
			if got := unacknowledged(); got != "1" { // the outbox still has it
				t.Errorf("%q", got)
			}
			if w := f.post("", "", ""); !strings.Contains(w, "id='2'") || f.stalled {
				t.Errorf("%s, stalled %t", w, f.stalled)
			}
			if got := unacknowledged(); got != "2" {
				t.Errorf("%q", got)
			}
			if acks != "" {
				f.post("", fmt.Sprintf("ack='%d' pause='10'", f.rid-1), "") // XEP-0124 §9.2: the last answer got lost
				if got := unacknowledged(); got != "2" {
					t.Errorf("%q", got)
				}
			}
			f.post("", "type='terminate'", "")
			if got := unacknowledged(); got != "" {
				t.Errorf("who says goodbye has got everything: %q", got)
			}
			f.over.Close()
			<-f.done
		}
	})
}

// TestBOSHAbandonedRequest: what comes for a client whose request was cut goes with its next one, whether that is the same again (XEP-0124 §14.3) or the
// one behind it, as a page that was loaded again sends it.
func TestBOSHAbandonedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, again := range []bool{true, false} {
			f := boshWithout(t, "hold='1'")
			ctx, cut := context.WithCancel(t.Context())
			answer := make(chan string, 1)
			go func() { answer <- f.postWithin(ctx, "", "", "") }()
			synctest.Wait()
			cut()
			if w := <-answer; w != "" {
				t.Fatalf("answered %s", w)
			}
			if err := errors.Join(f.over.Send(stream.Sent{Raw: []byte("<message id='1'/>")}), f.over.Flush()); err != nil {
				t.Fatal(err)
			}
			if !f.stalled {
				t.Error("the outbox takes it for sent")
			}
			cutOff := f.rid
			if again {
				f.rid--
			}
			if w := f.post("", "", ""); !strings.Contains(w, "<message id='1'/>") {
				t.Errorf("the next request: %s", w)
			}
			if f.stalled {
				t.Error("the outbox does not know that it was sent")
			}
			if !again { // asked for after all, it has an answer
				f.rid = cutOff - 1
				if w := f.post("", "", ""); strings.Contains(w, "<message") || strings.Contains(w, "type=") {
					t.Errorf("the request that was cut: %s", w)
				}
			}
			f.over.Close()
			<-f.done
		}
	})
}

// TestBOSHKeepsAnswers: as many as the client may have requests open, or those that it has not acknowledged, and no more (XEP-0124 §14.3).
func TestBOSHKeepsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const notFound = "condition='item-not-found'"
		for _, tt := range []struct {
			attrs, more string
			kept        int // after some requests
		}{
			{"hold='1'", "", 2},
			{"hold='2'", "", 3},
			{"hold='1' ack='1'", "", 1}, // no ack: it has all of them but the last
			{"hold='1' ack='1'", "ack='%d'", 2},
		} {
			f := boshWithout(t, tt.attrs)
			// Not empty, so that it is answered at once.
			ask := func(ack int) string {
				more := tt.more
				if more != "" {
					more = fmt.Sprintf(more, ack)
				}
				return f.post("", more, "<iq xmlns='jabber:client' type='get' id='a'><x xmlns='y'/></iq>")
			}
			answer := make(chan string, 1)
			for range 6 {
				go func() { answer <- ask(f.rid - 1) }() // of the last but one: the last got lost
				synctest.Wait()
				if err := errors.Join(f.over.Send(stream.Sent{Raw: fmt.Appendf(nil, "<iq id='%d'/>", f.rid)}), f.over.Flush()); err != nil {
					t.Fatal(err)
				}
				if w := <-answer; !strings.Contains(w, fmt.Sprintf("id='%d'", f.rid)) {
					t.Fatalf("%v: %s", tt, w)
				}
			}
			if n := len(f.over.(*boshSession).answers); n != tt.kept {
				t.Errorf("%v: %d answers are kept, want %d", tt, n, tt.kept)
			}
			last := f.rid
			for back := range tt.kept { // the newest first
				f.rid = last - back - 1 // post asks for the next
				if w, want := ask(0), fmt.Sprintf("id='%d'", last-back); !strings.Contains(w, want) {
					t.Errorf("%v: %s, want %s", tt, w, want)
				}
			}
			f.rid = last - tt.kept - 1
			if w := ask(0); !strings.Contains(w, notFound) {
				t.Errorf("%v: %s, want %s", tt, w, notFound)
			}
			if !f.is(nil) { // a copy that was held up on its way
				t.Errorf("%v: the session ended: %v", tt, f.err)
			}
			f.rid = last - 10
			if w := ask(0); !strings.Contains(w, notFound) || !f.is(errBinding) {
				t.Errorf("%v: %s %v", tt, w, f.err)
			}
			f.over.Close()
			<-f.done
		}
	})
}

// beginBOSH is a session whose stream is open, with these attributes of its first request. Nobody handles what comes.
func beginBOSH(t *testing.T, attrs string) (*fakeStream, *boshSession) {
	s := New(DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), healthy)
	var over *boshSession
	s.HandleStreams(Streams{Attach: func(t stream.Transport, _ auth.Channel) error {
		over = t.(*boshSession)
		over.SetLimits(stream.DefaultLimits())
		return nil
	}})
	f := &fakeStream{t: t, s: s, rid: 1000}
	go f.post(attrs, "to='localhost'", "")
	synctest.Wait()
	_, _, _, _ = over.Receive()
	_ = over.Open(stream.Header{From: "localhost"})
	_ = over.Flush()
	f.sid = over.id
	return f, over
}

// TestBOSHTakesNoMoreThanItHandles: a request waits with all that it brings until what came before has been received.
func TestBOSHTakesNoMoreThanItHandles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, over := beginBOSH(t, "hold='2'")
		large := "<message xmlns='jabber:client'><body>" + strings.Repeat("x", 150_000) + "</body></message>"
		for range 3 {
			go f.post("", "", large)
			synctest.Wait()
		}
		if over.queued > 2*stream.DefaultLimits().Bytes {
			t.Errorf("%d bytes wait", over.queued)
		}
		got := 0
		for range 3 {
			if ev, _, _, err := over.Receive(); err != nil || ev.Kind != stream.Stanzas {
				t.Fatal(ev, err)
			}
			got++
			synctest.Wait()
		}
		if got != 3 {
			t.Errorf("%d of 3", got)
		}
		over.Close()
		synctest.Wait()
	})
}

// TestBOSHTooManyRequests: who makes more requests than allowed, without waiting for an answer, is sent away (XEP-0124 §11); what waits of one
// session is bounded, whether its connections stay or not.
func TestBOSHTooManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, over := beginBOSH(t, "")
		answers := make(chan string, 4)
		const message = "<message xmlns='jabber:client'/>"
		for range 2 { // nothing of them is handled
			go func() { answers <- f.post("", "", message) }()
			synctest.Wait()
		}
		if len(answers) != 0 || over.lost != nil {
			t.Fatal("two are allowed")
		}
		go func() { answers <- f.post("", "", message) }()
		synctest.Wait()
		if len(answers) != 3 {
			t.Errorf("%d of 3 were answered", len(answers))
		}
		for range len(answers) {
			if w := <-answers; !strings.Contains(w, "condition='policy-violation'") && !strings.HasSuffix(w, "bind' xmlns:stream='http://etherx.jabber.org/streams'/>") {
				t.Error(w)
			}
		}
		over.Close()
		synctest.Wait()
	})
	synctest.Test(t, func(t *testing.T) { // one more to leave
		f, over := beginBOSH(t, "")
		answers := make(chan string, 4)
		for _, attrs := range []string{"", "", "type='terminate'"} {
			go func() { answers <- f.post("", attrs, "") }()
			synctest.Wait()
		}
		if over.verdict != "" {
			t.Error(over.verdict)
		}
		over.Close()
		synctest.Wait()
	})
	synctest.Test(t, func(t *testing.T) { // requests that wait for room do not gather
		f, over := beginBOSH(t, "")
		large := "<message xmlns='jabber:client'><body>" + strings.Repeat("x", 260_000) + "</body></message>"
		for range 2 {
			go f.post("", "", large)
			synctest.Wait()
		}
		refused := make(chan string, 50)
		for range 50 { // the same ones, over and over
			f.rid = 1002
			go func() { refused <- f.post("", "", large) }()
			synctest.Wait()
		}
		if len(refused) < 40 {
			t.Errorf("%d of 50 wait, each with its body", 50-len(refused))
		}
		over.Close()
		synctest.Wait()
	})
}

// TestBOSHEarlyRequestIsWrong: a request that came before its turn and then turns out to be wrong ends the session, and every request is answered once.
func TestBOSHEarlyRequestIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := boshWithout(t, "newkey='4bc453feff5c2d5e9a6dbf3e4b5b6dbb6e2a1c0f'") // nobody knows what it is made from
		f.over.(*boshSession).key = "a9993e364706816aba3e25717850c26c9cd0d89d"   // SHA-1 of "abc" (FIPS 180-2, appendix A.1)
		early, turn := make(chan string, 1), make(chan string, 1)
		f.rid++
		go func() { early <- f.post("key='wrong'", "", "") }()
		synctest.Wait()
		f.rid -= 2
		go func() { turn <- f.post("key='abc'", "", "") }()
		synctest.Wait()
		for name, answer := range map[string]chan string{"early": early, "turn": turn} {
			select {
			case w := <-answer:
				if !strings.Contains(w, "condition='item-not-found'") {
					t.Errorf("%s: %s", name, w)
				}
			default:
				t.Errorf("%s: not answered", name)
			}
		}
		f.over.Close()
		<-f.done
	})
}
