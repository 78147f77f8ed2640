package roster

// State is the state of the presence subscriptions between the owner of a roster and one contact, seen from the owner: the nine of RFC
// 6121 Appendix A.1 and, where the contact neither has a subscription nor waits for one, the same with a pre-approval (§3.4).
// A contact that is not in the roster is in the state None.
type State uint8

// The states. "Pending Out" is a request of the owner, "Pending In" one of the contact that the owner has not answered.
const (
	None State = iota
	NonePendingOut
	NonePendingIn
	NonePendingOutIn
	To
	ToPendingIn
	From
	FromPendingOut
	Both
	NoneApproved
	NonePendingOutApproved
	ToApproved
	states // how many there are
)

// Event is what happens to a subscription.
type Event uint8

// The events: a stanza that the owner sends to the contact (Out), one that arrives from the contact (In), and the removal of the roster
// item by the owner (RFC 6121 §2.5). Gone is the end of the contact's account here.
const (
	OutSubscribe Event = iota
	OutUnsubscribe
	OutSubscribed
	OutUnsubscribed
	InSubscribe
	InUnsubscribe
	InSubscribed
	InUnsubscribed
	Remove
	Gone
	events // how many there are
)

// Action is a set of things that the owner's server does at an event.
type Action uint16

// The actions. Those that send something to the contact happen in the order in which they are listed here, Deliver before Push
// (RFC 6121 §3.1.6, §3.2.3, §3.3.3).
const (
	Deliver          Action = 1 << iota // the contact's stanza goes to the owner's resources
	Keep                                // the contact's request is kept until the owner answers it (§3.1.3)
	Push                                // the roster item looks different to the owner's clients: roster push (§2.1.6)
	SendUnsubscribe                     // "unsubscribe" on the owner's behalf
	Hide                                // unavailable presence from each of the owner's available resources
	Route                               // the owner's stanza goes to the contact
	SendUnsubscribed                    // "unsubscribed" on the owner's behalf
	SendSubscribed                      // "subscribed" on the owner's behalf
	Show                                // the current presence of each of the owner's available resources
)

// Transition is what follows from an event: the next state, and what is done.
type Transition struct {
	New State
	Do  Action
}

// Next looks up what an event means in a state.
func Next(s State, e Event) Transition { return table[e][s] }

// table is the whole of RFC 6121 Appendix A.2 and A.3, with what the other sections add to it. The rows of the states with a pre-approval
// follow from §3.4.2.
var table = [events][states]Transition{
	// A.2.1, table 2: always routed; [1] the ask flag is set.
	OutSubscribe: {
		None:                   {NonePendingOut, Push | Route},
		NonePendingOut:         {NonePendingOut, Route},
		NonePendingIn:          {NonePendingOutIn, Push | Route},
		NonePendingOutIn:       {NonePendingOutIn, Route},
		To:                     {To, Route},
		ToPendingIn:            {ToPendingIn, Route},
		From:                   {FromPendingOut, Push | Route},
		FromPendingOut:         {FromPendingOut, Route},
		Both:                   {Both, Route},
		NoneApproved:           {NonePendingOutApproved, Push | Route},
		NonePendingOutApproved: {NonePendingOutApproved, Route},
		ToApproved:             {ToApproved, Route},
	},
	// A.2.2, table 3: always routed.
	OutUnsubscribe: {
		None:                   {None, Route},
		NonePendingOut:         {None, Push | Route},
		NonePendingIn:          {NonePendingIn, Route},
		NonePendingOutIn:       {NonePendingIn, Push | Route},
		To:                     {None, Push | Route},
		ToPendingIn:            {NonePendingIn, Push | Route},
		From:                   {From, Route},
		FromPendingOut:         {From, Push | Route},
		Both:                   {From, Push | Route},
		NoneApproved:           {NoneApproved, Route},
		NonePendingOutApproved: {NoneApproved, Push | Route},
		ToApproved:             {NoneApproved, Push | Route},
	},
	// A.2.3, table 4; [1] §3.4.2: a pre-approval is noted and not routed. §3.1.5: the contact gets the current presence.
	OutSubscribed: {
		None:                   {NoneApproved, Push},
		NonePendingOut:         {NonePendingOutApproved, Push},
		NonePendingIn:          {From, Push | Route | Show},
		NonePendingOutIn:       {FromPendingOut, Push | Route | Show},
		To:                     {ToApproved, Push},
		ToPendingIn:            {Both, Push | Route | Show},
		From:                   {From, 0},
		FromPendingOut:         {FromPendingOut, 0},
		Both:                   {Both, 0},
		NoneApproved:           {NoneApproved, 0},
		NonePendingOutApproved: {NonePendingOutApproved, 0},
		ToApproved:             {ToApproved, 0},
	},
	// A.2.4, table 5; [1] §3.2.2: a pre-approval is taken back and nothing routed. Unavailable presence goes only to a contact who
	// was subscribed: to one who only asked, it would tell the resources.
	OutUnsubscribed: {
		None:                   {None, 0},
		NonePendingOut:         {NonePendingOut, 0},
		NonePendingIn:          {None, Route},
		NonePendingOutIn:       {NonePendingOut, Route},
		To:                     {To, 0},
		ToPendingIn:            {To, Route},
		From:                   {None, Push | Hide | Route},
		FromPendingOut:         {NonePendingOut, Push | Hide | Route},
		Both:                   {To, Push | Hide | Route},
		NoneApproved:           {None, Push},
		NonePendingOutApproved: {NonePendingOut, Push},
		ToApproved:             {To, Push},
	},
	// A.3.1, table 6; [2] and §3.1.3 rule 2: answered on the owner's behalf when the contact is subscribed, and when it was pre-approved
	// (§3.4.2). A pre-approval is used up by this. The presence that follows the answer is what §3.1.6 expects.
	InSubscribe: {
		None:                   {NonePendingIn, Deliver | Keep},
		NonePendingOut:         {NonePendingOutIn, Deliver | Keep},
		NonePendingIn:          {NonePendingIn, 0},
		NonePendingOutIn:       {NonePendingOutIn, 0},
		To:                     {ToPendingIn, Deliver | Keep},
		ToPendingIn:            {ToPendingIn, 0},
		From:                   {From, SendSubscribed | Show},
		FromPendingOut:         {FromPendingOut, SendSubscribed | Show},
		Both:                   {Both, SendSubscribed | Show},
		NoneApproved:           {From, Push | SendSubscribed | Show},
		NonePendingOutApproved: {FromPendingOut, Push | SendSubscribed | Show},
		ToApproved:             {Both, Push | SendSubscribed | Show},
	},
	// A.3.2, table 7; §3.3.3 rule 3: unavailable presence. [1] has the server answer "unsubscribed" in every state that changes. It does so
	// where the contact was subscribed; an answer to one who only asked would tell a stranger that the account exists, because
	// nothing answers for one that does not (§8.5.1).
	InUnsubscribe: {
		None:                   {None, 0},
		NonePendingOut:         {NonePendingOut, 0},
		NonePendingIn:          {None, Deliver},
		NonePendingOutIn:       {NonePendingOut, Deliver},
		To:                     {To, 0},
		ToPendingIn:            {To, Deliver},
		From:                   {None, Deliver | Push | Hide | SendUnsubscribed},
		FromPendingOut:         {NonePendingOut, Deliver | Push | Hide | SendUnsubscribed},
		Both:                   {To, Deliver | Push | Hide | SendUnsubscribed},
		NoneApproved:           {NoneApproved, 0},
		NonePendingOutApproved: {NonePendingOutApproved, 0},
		ToApproved:             {ToApproved, 0},
	},
	// A.3.3, table 8.
	InSubscribed: {
		None:                   {None, 0},
		NonePendingOut:         {To, Deliver | Push},
		NonePendingIn:          {NonePendingIn, 0},
		NonePendingOutIn:       {ToPendingIn, Deliver | Push},
		To:                     {To, 0},
		ToPendingIn:            {ToPendingIn, 0},
		From:                   {From, 0},
		FromPendingOut:         {Both, Deliver | Push},
		Both:                   {Both, 0},
		NoneApproved:           {NoneApproved, 0},
		NonePendingOutApproved: {ToApproved, Deliver | Push},
		ToApproved:             {ToApproved, 0},
	},
	// A.3.4, table 9.
	InUnsubscribed: {
		None:                   {None, 0},
		NonePendingOut:         {None, Deliver | Push},
		NonePendingIn:          {NonePendingIn, 0},
		NonePendingOutIn:       {NonePendingIn, Deliver | Push},
		To:                     {None, Deliver | Push},
		ToPendingIn:            {NonePendingIn, Deliver | Push},
		From:                   {From, 0},
		FromPendingOut:         {From, Deliver | Push},
		Both:                   {From, Deliver | Push},
		NoneApproved:           {NoneApproved, 0},
		NonePendingOutApproved: {NoneApproved, Deliver | Push},
		ToApproved:             {NoneApproved, Deliver | Push},
	},
	// §2.5.2: both directions are cancelled. It names subscriptions; requests that wait in either direction are ended in the same way, or
	// the other side would wait for an answer to a request that nobody remembers.
	Remove: {
		None:                   {None, Push},
		NonePendingOut:         {None, Push | SendUnsubscribe},
		NonePendingIn:          {None, Push | SendUnsubscribed},
		NonePendingOutIn:       {None, Push | SendUnsubscribe | SendUnsubscribed},
		To:                     {None, Push | SendUnsubscribe},
		ToPendingIn:            {None, Push | SendUnsubscribe | SendUnsubscribed},
		From:                   {None, Push | Hide | SendUnsubscribed},
		FromPendingOut:         {None, Push | SendUnsubscribe | Hide | SendUnsubscribed},
		Both:                   {None, Push | SendUnsubscribe | Hide | SendUnsubscribed},
		NoneApproved:           {None, Push},
		NonePendingOutApproved: {None, Push | SendUnsubscribe},
		ToApproved:             {None, Push | SendUnsubscribe},
	},
	// Whoever gets the name next is somebody else: nothing that was between the owner and the contact holds for that account, a pre-approval
	// (§3.4) the least of all. There is nobody to send anything to.
	Gone: {
		None:                   {None, 0},
		NonePendingOut:         {None, Push},
		NonePendingIn:          {None, 0},
		NonePendingOutIn:       {None, Push},
		To:                     {None, Push},
		ToPendingIn:            {None, Push},
		From:                   {None, Push},
		FromPendingOut:         {None, Push},
		Both:                   {None, Push},
		NoneApproved:           {None, Push},
		NonePendingOutApproved: {None, Push},
		ToApproved:             {None, Push},
	},
}

// parts are the flags that make up a state.
type parts struct{ to, from, ask, in, approved bool }

var partsOf = [states]parts{
	None:                   {},
	NonePendingOut:         {ask: true},
	NonePendingIn:          {in: true},
	NonePendingOutIn:       {ask: true, in: true},
	To:                     {to: true},
	ToPendingIn:            {to: true, in: true},
	From:                   {from: true},
	FromPendingOut:         {from: true, ask: true},
	Both:                   {to: true, from: true},
	NoneApproved:           {approved: true},
	NonePendingOutApproved: {ask: true, approved: true},
	ToApproved:             {to: true, approved: true},
}

// State is the item's subscription state. Flags that mean nothing beside others (a request for a subscription that exists, a
// pre-approval of one that exists or waits for an answer) do not count.
func (it Item) State() State {
	p := parts{to: it.To, from: it.From}
	p.ask = it.Ask && !it.To
	p.in = it.In && !it.From
	p.approved = it.Approved && !it.From && !p.in
	for s, q := range partsOf {
		if p == q {
			return State(s)
		}
	}
	return None // not reached: every p is in partsOf
}

// setState changes the item's flags. An item that clients can see something of is in their roster from then on; a request that waits
// for an answer does not put it there (RFC 6121 §3.1.3, the security warning).
func (it *Item) setState(s State) {
	p := partsOf[s]
	it.To, it.From, it.Ask, it.In, it.Approved = p.to, p.from, p.ask, p.in, p.approved
	if !it.In {
		it.Request = nil
	}
	it.Listed = it.Listed || p.to || p.from || p.ask || p.approved
}

// Subscription is the value of the item's subscription attribute (RFC 6121 §2.1.2.5).
func (it Item) Subscription() string {
	switch {
	case it.Removed:
		return "remove"
	case it.To && it.From:
		return "both"
	case it.To:
		return "to"
	case it.From:
		return "from"
	}
	return "none"
}
