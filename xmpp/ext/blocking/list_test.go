package blocking

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// XEP-0191 §6: the four kinds of entry.
func TestJIDMatching(t *testing.T) {
	for _, tt := range []struct {
		entry, peer string
		want        bool
	}{
		{"user@domain/resource", "user@domain/resource", true},
		{"user@domain/resource", "user@domain/other", false},
		{"user@domain/resource", "user@domain", false},
		{"user@domain", "user@domain", true},
		{"user@domain", "user@domain/any", true},
		{"user@domain", "other@domain", false},
		{"user@domain", "domain", false},
		{"domain/resource", "domain/resource", true},
		{"domain/resource", "domain", false},
		{"domain/resource", "domain/other", false},
		{"domain/resource", "user@domain/resource", false},
		{"domain", "domain", true},
		{"domain", "domain/resource", true},
		{"domain", "user@domain", true},
		{"domain", "user@domain/resource", true},
		{"domain", "sub.domain", false},
		{"domain", "user@sub.domain", false},
		{"sub.domain", "user@domain", false},
	} {
		l := newList([]jid.JID{jid.MustParse("else@where"), jid.MustParse(tt.entry)})
		if got := l.blocks(jid.MustParse(tt.peer)); got != tt.want {
			t.Errorf("entry %s, peer %s: %v, want %v", tt.entry, tt.peer, got, tt.want)
		}
	}
}

func TestChangedTellsWhoseViewChanges(t *testing.T) {
	jids := func(list ...string) (out []jid.JID) {
		for _, s := range list {
			out = append(out, jid.MustParse(s))
		}
		return out
	}
	for _, tt := range []struct {
		name                            string
		contacts, before, after, expect []jid.JID
	}{
		{"a contact", jids("romeo@m", "nurse@c"), nil, jids("romeo@m"), jids("romeo@m")},
		{"unblocked", jids("romeo@m"), jids("romeo@m"), nil, jids("romeo@m")},
		{"not subscribed", jids("nurse@c"), nil, jids("romeo@m"), nil},
		{"a domain", jids("romeo@m", "nurse@c", "paris@m"), nil, jids("m"), jids("romeo@m", "paris@m")},
		{"still blocked by the domain", jids("romeo@m"), jids("m", "romeo@m"), jids("m"), nil},
		{"one resource", jids("romeo@m"), nil, jids("romeo@m/home"), jids("romeo@m/home")},
		{"one resource unblocked", jids("romeo@m"), jids("romeo@m/home", "romeo@m/x"), jids("romeo@m/x"), jids("romeo@m/home")},
		{"one resource of a blocked contact", jids("romeo@m"), jids("romeo@m"), jids("romeo@m", "romeo@m/home"), nil},
		{"one resource of a stranger", jids("nurse@c"), nil, jids("romeo@m/home"), nil},
	} {
		if got := changed(tt.contacts, newList(tt.before), newList(tt.after)); fmt.Sprint(got) != fmt.Sprint(tt.expect) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.expect)
		}
	}
}

func request(payload string) *xmpp.Stanza {
	return xmpp.NewStanza(xmpp.Stanza{Kind: xmpp.IQ, Type: "set", ID: "1"}, nil, []byte(payload),
		[]xmpp.Span{{Space: NS, Local: "block", Start: 0, End: len(payload)}})
}

func TestReadRequest(t *testing.T) {
	for _, tt := range []struct {
		payload, want string
		err           error
	}{
		{"<block xmlns='urn:xmpp:blocking'><item jid='romeo@montague.net'/></block>", "[romeo@montague.net]", nil},
		{"<block xmlns='urn:xmpp:blocking'>\n <item jid='A@B'/> <item jid='a@b'/><item jid='c'/>\n</block>", "[a@b c]", nil},
		{"<block xmlns='urn:xmpp:blocking'/>", "[]", nil},
		{"<block xmlns='urn:xmpp:blocking'><item/></block>", "", xmpp.ErrBadRequest},
		{"<block xmlns='urn:xmpp:blocking'><item jid=''/></block>", "", xmpp.ErrJIDMalformed},
		{"<block xmlns='urn:xmpp:blocking'><item jid='a@'/></block>", "", xmpp.ErrJIDMalformed},
		{"<block xmlns='urn:xmpp:blocking'><item jid='ok'/><item jid='@b'/></block>", "", xmpp.ErrJIDMalformed},
		{"<block xmlns='urn:xmpp:blocking'><item xmlns='urn:other' jid='a@b'/></block>", "", xmpp.ErrBadRequest},
	} {
		got, err := read(request(tt.payload))
		if fmt.Sprint(err) != fmt.Sprint(tt.err) || err == nil && fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, %v, want %s, %v", tt.payload, got, err, tt.want, tt.err)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		"<block xmlns='urn:xmpp:blocking'><item jid='romeo@montague.net'/></block>",
		"<unblock xmlns='urn:xmpp:blocking'/>",
		"<block xmlns='urn:xmpp:blocking'><item jid='a/b'>text</item><x/></block>",
		"<block xmlns='urn:xmpp:blocking'><item jid='&#10;@b'/></block>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		entries, err := read(request(payload))
		if _, expected := xmpp.AsStanzaError(err); err != nil && !expected {
			t.Fatalf("not a stanza error: %v", err)
		}
		l := newList(entries)
		for _, e := range entries {
			if !l.blocks(e) {
				t.Errorf("%q does not block itself", e)
			}
			if again, err := jid.Parse(e.String()); err != nil || !again.Equal(e) {
				t.Errorf("%q is not stable: %v, %v", e, again, err)
			}
		}
	})
}

// down is a store whose database is gone.
type down struct{ Store }

var errDown = errors.New("down")

func (down) Blocked(context.Context, jid.JID) ([]jid.JID, error) { return nil, errDown }

func TestNoListNoDelivery(t *testing.T) {
	m := New(down{}, nil)
	romeo, juliet := jid.MustParse("romeo@montague.net/orchard"), jid.MustParse("juliet@capulet.com")
	d := &xmpp.Delivery{Account: juliet, Key: juliet.String(), Stanza: xmpp.New(xmpp.Message, "chat", juliet, romeo)}
	if err := m.incoming(context.Background(), d); !errors.Is(err, errDown) {
		t.Errorf("incoming: %v, want the database's error", err)
	}
	d.Stanza = xmpp.New(xmpp.IQ, "set", juliet, juliet)
	if err := m.incoming(context.Background(), d); err != nil {
		t.Errorf("the account's own: %v", err)
	}
}

func BenchmarkBlocks(b *testing.B) {
	m := New(nil, nil)
	romeo, juliet := jid.MustParse("romeo@montague.net/orchard"), jid.MustParse("juliet@capulet.com")
	for _, n := range []int{0, 10} {
		var entries []jid.JID
		for i := range n {
			entries = append(entries, jid.MustParse(fmt.Sprintf("user%d@domain", i)))
		}
		m.Forget(juliet)
		_, _, gen := m.cache.Get(juliet.String())
		l := newList(entries)
		m.cache.Put(juliet.String(), l, l.size, gen)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if blocked, err := m.Blocks(context.Background(), juliet, romeo); blocked || err != nil {
					b.Fatal(blocked, err)
				}
			}
		})
	}
}
