package roster

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The names that RFC 6121 Appendix A.1 gives to the states; "approved" is the flag of §3.4.
var stateNames = map[string]State{
	"None":                         None,
	"None + Pending Out":           NonePendingOut,
	"None + Pending In":            NonePendingIn,
	"None + Pending Out+In":        NonePendingOutIn,
	"To":                           To,
	"To + Pending In":              ToPendingIn,
	"From":                         From,
	"From + Pending Out":           FromPendingOut,
	"Both":                         Both,
	"None, approved":               NoneApproved,
	"None + Pending Out, approved": NonePendingOutApproved,
	"To, approved":                 ToApproved,
}

var eventNames = [events]string{"out subscribe", "out unsubscribe", "out subscribed", "out unsubscribed",
	"in subscribe", "in unsubscribe", "in subscribed", "in unsubscribed", "remove", "gone"}

func nameOf(s State) string {
	for n, t := range stateNames {
		if s == t {
			return n
		}
	}
	return fmt.Sprint(uint8(s))
}

// appendix holds tables 2 to 9 of RFC 6121 Appendix A: existing state | route or deliver | new state ("-" is "no state change").
// The rows with "approved" follow from §3.4.2: in them the flag is what changes, or it stays.
var appendix = map[Event]string{
	OutSubscribe: `
		None                         | MUST | None + Pending Out
		None + Pending Out           | MUST | -
		None + Pending In            | MUST | None + Pending Out+In
		None + Pending Out+In        | MUST | -
		To                           | MUST | -
		To + Pending In              | MUST | -
		From                         | MUST | From + Pending Out
		From + Pending Out           | MUST | -
		Both                         | MUST | -
		None, approved               | MUST | None + Pending Out, approved
		None + Pending Out, approved | MUST | -
		To, approved                 | MUST | -`,
	OutUnsubscribe: `
		None                         | MUST | -
		None + Pending Out           | MUST | None
		None + Pending In            | MUST | -
		None + Pending Out+In        | MUST | None + Pending In
		To                           | MUST | None
		To + Pending In              | MUST | None + Pending In
		From                         | MUST | -
		From + Pending Out           | MUST | From
		Both                         | MUST | From
		None, approved               | MUST | -
		None + Pending Out, approved | MUST | None, approved
		To, approved                 | MUST | None, approved`,
	OutSubscribed: `
		None                         | M.N. | None, approved
		None + Pending Out           | M.N. | None + Pending Out, approved
		None + Pending In            | MUST | From
		None + Pending Out+In        | MUST | From + Pending Out
		To                           | M.N. | To, approved
		To + Pending In              | MUST | Both
		From                         | M.N. | -
		From + Pending Out           | M.N. | -
		Both                         | M.N. | -
		None, approved               | M.N. | -
		None + Pending Out, approved | M.N. | -
		To, approved                 | M.N. | -`,
	OutUnsubscribed: `
		None                         | S.N. | -
		None + Pending Out           | S.N. | -
		None + Pending In            | MUST | None
		None + Pending Out+In        | MUST | None + Pending Out
		To                           | S.N. | -
		To + Pending In              | MUST | To
		From                         | MUST | None
		From + Pending Out           | MUST | None + Pending Out
		Both                         | MUST | To
		None, approved               | M.N. | None
		None + Pending Out, approved | M.N. | None + Pending Out
		To, approved                 | M.N. | To`,
	InSubscribe: `
		None                         | MUST | None + Pending In
		None + Pending Out           | MUST | None + Pending Out+In
		None + Pending In            | S.N. | -
		None + Pending Out+In        | S.N. | -
		To                           | MUST | To + Pending In
		To + Pending In              | S.N. | -
		From                         | S.N. | -
		From + Pending Out           | S.N. | -
		Both                         | S.N. | -
		None, approved               | M.N. | From
		None + Pending Out, approved | M.N. | From + Pending Out
		To, approved                 | M.N. | Both`,
	InUnsubscribe: `
		None                         | S.N. | -
		None + Pending Out           | S.N. | -
		None + Pending In            | MUST | None
		None + Pending Out+In        | MUST | None + Pending Out
		To                           | S.N. | -
		To + Pending In              | MUST | To
		From                         | MUST | None
		From + Pending Out           | MUST | None + Pending Out
		Both                         | MUST | To
		None, approved               | S.N. | -
		None + Pending Out, approved | S.N. | -
		To, approved                 | S.N. | -`,
	InSubscribed: `
		None                         | S.N. | -
		None + Pending Out           | MUST | To
		None + Pending In            | S.N. | -
		None + Pending Out+In        | MUST | To + Pending In
		To                           | S.N. | -
		To + Pending In              | S.N. | -
		From                         | S.N. | -
		From + Pending Out           | MUST | Both
		Both                         | S.N. | -
		None, approved               | S.N. | -
		None + Pending Out, approved | MUST | To, approved
		To, approved                 | S.N. | -`,
	InUnsubscribed: `
		None                         | S.N. | -
		None + Pending Out           | MUST | None
		None + Pending In            | S.N. | -
		None + Pending Out+In        | MUST | None + Pending In
		To                           | MUST | None
		To + Pending In              | MUST | None + Pending In
		From                         | S.N. | -
		From + Pending Out           | MUST | From
		Both                         | MUST | From
		None, approved               | S.N. | -
		None + Pending Out, approved | MUST | None, approved
		To, approved                 | MUST | None, approved`,
}

// answers are the stanzas that the server sends to the contact by itself, and other consequences, of every cell that has some.
// A.3.1 [2] and §3.1.3 rule 2, §3.4.2; A.3.2 [1] (only to a contact who was subscribed) and §3.3.3 rule 3; §3.1.5; §3.2.2; §2.5.2.
var answers = map[Event]map[string]Action{
	OutSubscribed:   {"None + Pending In": Show, "None + Pending Out+In": Show, "To + Pending In": Show},
	OutUnsubscribed: {"From": Hide, "From + Pending Out": Hide, "Both": Hide},
	InSubscribe: {
		"None": Keep, "None + Pending Out": Keep, "To": Keep,
		"From": SendSubscribed | Show, "From + Pending Out": SendSubscribed | Show, "Both": SendSubscribed | Show,
		"None, approved": SendSubscribed | Show, "None + Pending Out, approved": SendSubscribed | Show, "To, approved": SendSubscribed | Show,
	},
	InUnsubscribe: {"From": Hide | SendUnsubscribed, "From + Pending Out": Hide | SendUnsubscribed, "Both": Hide | SendUnsubscribed},
	Remove: {
		"None + Pending Out":           SendUnsubscribe,
		"None + Pending In":            SendUnsubscribed,
		"None + Pending Out+In":        SendUnsubscribe | SendUnsubscribed,
		"To":                           SendUnsubscribe,
		"To + Pending In":              SendUnsubscribe | SendUnsubscribed,
		"From":                         Hide | SendUnsubscribed,
		"From + Pending Out":           SendUnsubscribe | Hide | SendUnsubscribed,
		"Both":                         SendUnsubscribe | Hide | SendUnsubscribed,
		"None + Pending Out, approved": SendUnsubscribe,
		"To, approved":                 SendUnsubscribe,
	},
}

// shown is what the owner's clients see of a state (RFC 6121 Appendix A.1, §2.1.2.1, §2.1.2.2): every state but those with "Pending In",
// which look like the same state without.
var shown = map[string]string{
	"None":                         "none",
	"None + Pending Out":           "none ask",
	"None + Pending In":            "none",
	"None + Pending Out+In":        "none ask",
	"To":                           "to",
	"To + Pending In":              "to",
	"From":                         "from",
	"From + Pending Out":           "from ask",
	"Both":                         "both",
	"None, approved":               "none approved",
	"None + Pending Out, approved": "none ask approved",
	"To, approved":                 "to approved",
}

func TestEveryCellOfAppendixA(t *testing.T) {
	cells := 0
	for e, text := range appendix {
		verb := Route
		if e >= InSubscribe {
			verb = Deliver
		}
		for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
			f := strings.Split(line, "|")
			from, must, to := strings.TrimSpace(f[0]), strings.TrimSpace(f[1]) == "MUST", strings.TrimSpace(f[2])
			if to == "-" {
				to = from
			}
			cells++
			t.Run(eventNames[e]+"/"+from, func(t *testing.T) {
				want := answers[e][from]
				if must {
					want |= verb
				}
				if shown[from] != shown[to] {
					want |= Push
				}
				check(t, from, e, to, want)
			})
		}
	}
	for from := range stateNames {
		cells++
		t.Run("remove/"+from, func(t *testing.T) {
			check(t, from, Remove, "None", Push|answers[Remove][from]) // §2.5.2: always a push
		})
		cells++
		t.Run("gone/"+from, func(t *testing.T) {
			var want Action
			if shown[from] != "none" {
				want = Push
			}
			check(t, from, Gone, "None", want)
		})
	}
	if want := int(events) * int(states); cells != want {
		t.Errorf("%d cells tested, the table has %d", cells, want)
	}
}

func check(t *testing.T, from string, e Event, to string, do Action) {
	t.Helper()
	s, ok := stateNames[from]
	n, ok2 := stateNames[to]
	if !ok || !ok2 {
		t.Fatalf("no state %q or %q", from, to)
	}
	got := Next(s, e)
	if got.New != n {
		t.Errorf("new state %s, want %s", nameOf(got.New), to)
	}
	if got.Do != do {
		t.Errorf("actions %b, want %b", got.Do, do)
	}
}

func TestItemAndStateAgree(t *testing.T) {
	for name, s := range stateNames {
		var it Item
		it.setState(s)
		if it.State() != s {
			t.Errorf("%s: flags mean %s", name, nameOf(it.State()))
		}
		looks := it.Subscription()
		if it.Ask {
			looks += " ask"
		}
		if it.Approved {
			looks += " approved"
		}
		if looks != shown[name] {
			t.Errorf("%s looks like %q, want %q", name, looks, shown[name])
		}
		// RFC 6121 §3.1.3: a request alone never adds an item to the roster.
		if want := name != "None" && name != "None + Pending In"; it.Listed != want {
			t.Errorf("%s: listed %v, want %v", name, it.Listed, want)
		}
	}
}

func TestAnsweredRequestIsForgotten(t *testing.T) {
	it := Item{In: true, Request: []byte("<presence/>")}
	it.setState(From)
	if it.Request != nil || it.In {
		t.Errorf("the request stays after the answer: %+v", it)
	}
}

func TestItemWithOddFlagsHasAState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := func(n string) bool { return rapid.Bool().Draw(t, n) }
		it := Item{To: b("to"), From: b("from"), Ask: b("ask"), In: b("in"), Approved: b("approved")}
		s := it.State()
		var jt Item
		jt.setState(s)
		if jt.To != it.To || jt.From != it.From {
			t.Fatalf("%+v has the state %s", it, nameOf(s))
		}
	})
}

// pair is two accounts that are each other's contact, and the stanzas on their way between them.
type pair struct {
	item [2]Item
	wire [2][]Event // what is on its way to that side, in order
}

// do lets side go through e and puts what it sends on the wire.
func (p *pair) do(side int, e Event) {
	tr := Next(p.item[side].State(), e)
	p.item[side].setState(tr.New)
	if e == Remove {
		p.item[side] = Item{}
	}
	send := func(a Action, e Event) {
		if tr.Do&a != 0 {
			p.wire[1-side] = append(p.wire[1-side], e)
		}
	}
	send(SendUnsubscribe, InUnsubscribe)
	send(Route, e+InSubscribe)
	send(SendUnsubscribed, InUnsubscribed)
	send(SendSubscribed, InSubscribed)
}

func (p *pair) deliver(side int) {
	if len(p.wire[side]) > 0 {
		e := p.wire[side][0]
		p.wire[side] = p.wire[side][1:]
		p.do(side, e)
	}
}

func (p *pair) settle(t *rapid.T) {
	for n := 0; len(p.wire[0])+len(p.wire[1]) > 0; n++ {
		if n > 100 {
			t.Fatal("the two servers answer each other for ever")
		}
		p.deliver(0)
		p.deliver(1)
	}
}

// RFC 6121 §3: "Subscription states are reflected in the rosters of both the user and the contact."
func TestRostersOfTwoAccountsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pair
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			side := rapid.IntRange(0, 1).Draw(t, "side")
			e := rapid.SampledFrom([]Event{OutSubscribe, OutUnsubscribe, OutSubscribed, OutUnsubscribed, Remove}).Draw(t, "event")
			p.do(side, e)
			p.settle(t)
			for i := range 2 {
				a, b := p.item[i], p.item[1-i]
				if a.To != b.From {
					t.Fatalf("side %d has to=%v, the other from=%v", i, a.To, b.From)
				}
				if a.Ask != b.In {
					t.Fatalf("side %d has ask=%v, the other waits for its owner's answer: %v", i, a.Ask, b.In)
				}
			}
		}
	})
}

// RFC 6121 §3.1.3 rule 1: whatever arrives and however it crosses, only the owner lets a contact see the owner's presence.
func TestNobodySubscribesWithoutTheOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pair
		allowed := [2]bool{} // the owner has said "subscribed" and not taken it back
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			side := rapid.IntRange(0, 1).Draw(t, "side")
			e := rapid.SampledFrom([]Event{OutSubscribe, OutUnsubscribe, OutSubscribed, OutUnsubscribed, Remove, InSubscribe}).Draw(t, "event")
			switch e {
			case InSubscribe:
				p.deliver(side)
			case OutSubscribed:
				allowed[side] = true
				p.do(side, e)
			case OutUnsubscribed, Remove:
				allowed[side] = false
				p.do(side, e)
			default:
				p.do(side, e)
			}
			for i := range 2 {
				if p.item[i].From && !allowed[i] {
					t.Fatalf("side %d is seen without its owner's word", i)
				}
			}
		}
	})
}
