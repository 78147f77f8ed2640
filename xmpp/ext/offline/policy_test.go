package offline

import (
	"testing"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Every cell of the table type × content and hints.
func TestWhatIsSpooled(t *testing.T) {
	const no, dr, sp = refuse, drop, spool
	types := []string{"", "normal", "chat", "headline", "groupchat", "error", "unknown"}
	body, state := xmpp.El("", "body").Say("hi"), xmpp.El(nsChatStates, "composing")
	hint := func(name string) *xmpp.Element { return xmpp.El(nsHints, name) }
	for _, c := range []struct {
		what    string
		content []*xmpp.Element
		want    []fate // for each of types
	}{
		{"body", []*xmpp.Element{body}, []fate{sp, sp, sp, no, no, no, sp}},
		{"body and chat state", []*xmpp.Element{body, state}, []fate{sp, sp, sp, no, no, no, sp}},
		{"subject", []*xmpp.Element{xmpp.El("", "subject").Say("hi")}, []fate{sp, sp, sp, no, no, no, sp}},
		{"chat state", []*xmpp.Element{state}, []fate{dr, dr, dr, no, no, no, dr}},
		{"chat state and thread", []*xmpp.Element{state, xmpp.El("", "thread").Say("1")}, []fate{dr, dr, dr, no, no, no, dr}},
		{"chat state and origin-id", []*xmpp.Element{state, xmpp.El(nsStanzaID, "origin-id", "id", "1")}, []fate{dr, dr, dr, no, no, no, dr}},
		{"chat state and something else", []*xmpp.Element{state, xmpp.El("urn:xmpp:receipts", "received")}, []fate{sp, sp, sp, no, no, no, sp}},
		{"nothing", nil, []fate{dr, dr, dr, no, no, no, dr}},
		{"receipt without body", []*xmpp.Element{xmpp.El("urn:xmpp:receipts", "received")}, []fate{sp, sp, sp, no, no, no, sp}},

		{"body, no-store", []*xmpp.Element{body, hint("no-store")}, []fate{no, no, no, no, no, no, no}},
		{"chat state, no-store", []*xmpp.Element{state, hint("no-store")}, []fate{dr, dr, dr, no, no, no, dr}},
		{"body, no-permanent-store", []*xmpp.Element{body, hint("no-permanent-store")}, []fate{sp, sp, sp, no, no, no, sp}},
		{"body, no-copy", []*xmpp.Element{body, hint("no-copy")}, []fate{sp, sp, sp, no, no, no, sp}},
		{"body, store", []*xmpp.Element{body, hint("store")}, []fate{sp, sp, sp, sp, no, no, sp}},
		{"chat state, store", []*xmpp.Element{state, hint("store")}, []fate{sp, sp, sp, sp, no, no, sp}},
		{"only store", []*xmpp.Element{hint("store")}, []fate{sp, sp, sp, sp, no, no, sp}},
		{"body, store and no-store", []*xmpp.Element{body, hint("store"), hint("no-store")}, []fate{no, no, no, no, no, no, no}},
		{"body, store of another namespace", []*xmpp.Element{body, xmpp.El("urn:x", "store")}, []fate{sp, sp, sp, no, no, no, sp}},
		{"body, no-store of another namespace", []*xmpp.Element{body, xmpp.El("urn:x", "no-store")}, []fate{sp, sp, sp, no, no, no, sp}},
	} {
		for i, typ := range types {
			t.Run(c.what+", type "+typ, func(t *testing.T) {
				s := xmpp.New(xmpp.Message, typ, jid.MustParse("juliet@capulet.com"), jid.MustParse("romeo@montague.net/orchard"), c.content...)
				if got := decide(s); got != c.want[i] {
					t.Errorf("%d, want %d", got, c.want[i])
				}
			})
		}
	}
}
