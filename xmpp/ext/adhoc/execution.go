package adhoc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
)

const (
	lifetime      = 10 * time.Minute // chosen: of an execution between two of its steps; people fill in forms
	maxPerAccount = 5                // chosen: the oldest one ends when an account starts more
	maxExecutions = 1000             // chosen: of all accounts together
	maxSubmitted  = 64 << 10         // chosen: bytes of forms that wait for later stages of one execution
)

// execution is a session of XEP-0050 §3.3, between one requester and one domain. Whoever has taken it out of executions owns it.
type execution struct {
	id, node  string
	from      jid.JID // full
	domain    string
	submitted []*form.Data // one for every stage that was passed
	sizes     []int        // what each of submitted takes
	touched   time.Time
	ended     bool
}

// step carries out one action with an execution that waits for the form of stage len(submitted).
func (e *execution) step(ctx context.Context, c *Command, q request, size int) (*xmpp.Element, error) {
	stage, last := len(e.submitted), c.Stages-1
	if q.Action == "execute" { // XEP-0050 §3.4: what the execute attribute said
		q.Action = "next"
		if stage == last {
			q.Action = "complete"
		}
	}
	switch {
	case q.Action == "cancel": // §3.4: "always allowed"
		e.ended = true
		return e.element("canceled"), nil
	case q.Action == "prev" && stage > 0:
		before := e.submitted[:stage-1]
		el, err := e.show(ctx, c, before)
		if err == nil {
			e.submitted, e.sizes = before, e.sizes[:stage-1]
		}
		return el, err
	case q.Action == "prev", q.Action == "next" && stage == last, q.Action == "complete" && stage != last:
		return nil, errBadAction
	case q.Form == nil:
		return nil, errBadPayload
	}
	all := append(e.submitted[:stage:stage], q.Form)
	if q.Action == "complete" {
		return e.run(ctx, c, all)
	}
	sum := size
	for _, n := range e.sizes {
		sum += n
	}
	if sum > maxSubmitted {
		return nil, xmpp.ErrResourceConstraint
	}
	el, err := e.show(ctx, c, all)
	if err == nil {
		e.submitted, e.sizes = all, append(e.sizes, size)
	}
	return el, err
}

// show is the form of the stage after submitted, with the actions that are allowed there.
func (e *execution) show(ctx context.Context, c *Command, submitted []*form.Data) (*xmpp.Element, error) {
	f, err := c.Form(ctx, e.from, e.domain, submitted)
	if err != nil {
		return nil, err
	}
	x, err := xmpp.Marshal(f)
	if err != nil {
		return nil, err
	}
	// §4.2: SHOULD be there until the command is complete, and execute names one of the actions.
	forward := "next"
	if len(submitted) == c.Stages-1 {
		forward = "complete"
	}
	actions := xmpp.El("", "actions", "execute", forward)
	if len(submitted) > 0 {
		actions.Add(xmpp.El("", "prev"))
	}
	return e.element("executing").Add(actions.Add(xmpp.El("", forward)), x), nil
}

// run completes the command.
func (e *execution) run(ctx context.Context, c *Command, submitted []*form.Data) (*xmpp.Element, error) {
	result, note, err := c.Run(ctx, e.from, e.domain, submitted)
	if err != nil {
		return nil, err
	}
	e.ended = true
	el := e.element("completed")
	if note != "" {
		el.Add(xmpp.El("", "note", "type", "info").Say(note))
	}
	if result != nil {
		x, err := xmpp.Marshal(result)
		if err != nil {
			return nil, err
		}
		el.Add(x)
	}
	return el, nil
}

func (e *execution) element(status string) *xmpp.Element {
	// §3.7: the language of the texts is told with every response; there is only one.
	return xmpp.El(NS, "command", "node", e.node, "sessionid", e.id, "status", status, "xml:lang", "en")
}

// newID is a session id (§3.3: unique) that nobody can guess.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// wasID reports whether id is one that newID may have made.
func wasID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 16
}

// executions are those that wait for their requester's next step. Bounded by maxExecutions.
type executions struct {
	now func() time.Time

	mu   sync.Mutex
	list map[string]*execution // by id, guarded by mu
}

func (x *executions) init() {
	x.now, x.list = time.Now, make(map[string]*execution)
}

// start adds e. It ends the account's oldest execution when there are too many.
func (x *executions) start(e *execution) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.now()
	account, mine := e.from.Bare(), 0
	var oldest *execution
	for id, o := range x.list {
		if now.Sub(o.touched) > lifetime {
			delete(x.list, id)
			continue
		}
		if !o.from.Bare().Equal(account) {
			continue
		}
		if mine++; oldest == nil || o.touched.Before(oldest.touched) {
			oldest = o
		}
	}
	if mine >= maxPerAccount {
		delete(x.list, oldest.id)
	}
	if len(x.list) >= maxExecutions {
		return xmpp.ErrResourceConstraint
	}
	e.touched = now
	x.list[e.id] = e
	return nil
}

// take removes and returns the execution with that id if it is from's, of that command and at that domain (§3.3: valid only between one
// requester and one responder).
func (x *executions) take(id, node string, from jid.JID, domain string) (*execution, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.list[id]
	if e == nil || !e.from.Equal(from) || e.domain != domain || x.now().Sub(e.touched) > lifetime {
		if wasID(id) {
			return nil, errSessionExpired // §4.4: no longer active
		}
		return nil, errBadSessionID
	}
	if e.node != node {
		return nil, errBadSessionID // §2.4.2: the requester maintains the node
	}
	delete(x.list, id)
	return e, nil
}

// back puts an execution that take gave into the list again.
func (x *executions) back(e *execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.touched = x.now()
	x.list[e.id] = e
}

// endAll ends the executions of a full JID.
func (x *executions) endAll(from string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, e := range x.list {
		if e.from.String() == from {
			delete(x.list, id)
		}
	}
}
