package pubsub

import (
	"testing"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

type session struct {
	xmpp.Session
	value any
}

func (s *session) Value(any) any { return s.value }
func (s *session) SetValue(_, v any) any {
	old := s.value
	s.value = v
	return old
}

// What was asked of a resource comes too late when it has gone, or has told something else: XEP-0163 §4.3.3.
func TestAnswerThatComesTooLate(t *testing.T) {
	m, s := new(Module), new(session)
	asked, learnt := &interest{raw: "a"}, &interest{raw: "a", known: true}
	m.become(s, asked)
	m.become(s, nil)
	if m.replace(s, asked, learnt) || interestOf(s) != nil {
		t.Error("one that is unavailable is interested")
	}
	asked.comes = []SubscribedTo{{}}
	m.become(s, asked)
	other := &interest{raw: "b"}
	m.become(s, other)
	if m.replace(s, asked, learnt) || interestOf(s) != other {
		t.Error("what it has said first counts")
	}
	if len(other.comes) != 1 {
		t.Error("it is not sent what it has not been sent yet")
	}
	if !m.replace(s, other, learnt) || interestOf(s) != learnt {
		t.Error("what was learnt does not count")
	}

	var r remotes
	r.init()
	romeo := jid.MustParse("romeo@remote/orchard")
	r.put("juliet@localhost", romeo, asked)
	r.drop("juliet@localhost", romeo)
	if r.replace("juliet@localhost", romeo, asked, learnt) || r.known("juliet@localhost", romeo) != nil {
		t.Error("a resource elsewhere that is unavailable is remembered")
	}
	r.put("juliet@localhost", romeo, other)
	if r.replace("juliet@localhost", romeo, asked, learnt) || !r.replace("juliet@localhost", romeo, other, learnt) || r.known("juliet@localhost", romeo) != learnt {
		t.Error("what was learnt of a resource elsewhere")
	}
}
