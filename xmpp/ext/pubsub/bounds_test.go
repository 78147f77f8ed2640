package pubsub_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/xmpptest"
)

// One contact whose resources never answer does not keep the server from asking others.
func TestOneContactAsksForNoMoreThanItsShare(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	w.from["juliet@localhost mallory@evil"] = true
	w.from["juliet@localhost romeo@remote"] = true
	asked, end := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(end) })
	w.ask = func(s *xmpp.Stanza) (*xmpp.Stanza, error) {
		if s.To.Domainpart() == "remote" {
			close(asked)
			return nil, errUnused
		}
		<-end
		return nil, errUnused
	}
	for i := range 1100 {
		w.presence(t, fmt.Sprint("mallory@evil/", i), "", fmt.Sprint("never", i))
	}
	w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
	w.wait(t, asked, "romeo is not asked")
}

// A contact with very many resources pushes its own out of memory, not those of others.
func TestOneContactIsRememberedWithSomeResources(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	w.from["juliet@localhost mallory@evil"] = true
	w.from["juliet@localhost romeo@remote"] = true
	const tune = "http://jabber.org/protocol/tune"
	w.ask = func(s *xmpp.Stanza) (*xmpp.Stanza, error) {
		return xmpp.New(xmpp.IQ, "result", s.From, s.To, element(t, "<query xmlns='http://jabber.org/protocol/disco#info'><feature var='"+tune+"+notify'/></query>")), nil
	}
	w.publishes(t, tune, "a")
	w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
	w.next(t)
	for i := range 50_001 {
		w.presence(t, fmt.Sprint("mallory@evil/", i), "", "")
	}
	w.publishes(t, tune, "b")
	if all := w.take(); len(all) != 1 || all[0].To.String() != "romeo@remote/orchard" {
		t.Errorf("notified: %v", all)
	}
}

// A client that did not answer is asked again when its next presence comes.
func TestCapabilitiesAreAskedForAgain(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	w.from["juliet@localhost romeo@remote"] = true
	const tune = "http://jabber.org/protocol/tune"
	failed := make(chan struct{}, 100)
	silent := true
	w.ask = func(s *xmpp.Stanza) (*xmpp.Stanza, error) {
		if silent {
			failed <- struct{}{}
			return nil, errors.New("no answer")
		}
		return xmpp.New(xmpp.IQ, "result", s.From, s.To, element(t, "<query xmlns='http://jabber.org/protocol/disco#info'><feature var='"+tune+"+notify'/></query>")), nil
	}
	w.publishes(t, tune, "a")
	w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
	<-failed
	silent = false
	for end := time.After(xmpptest.Patience); ; {
		w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
		select {
		case <-w.came:
			return
		case <-time.After(time.Millisecond): // until what follows from the failure is done
		case <-end:
			t.Fatal("not asked again")
		}
	}
}
