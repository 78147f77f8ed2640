package pubsub

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/caps"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	nsInfo   = "http://jabber.org/protocol/disco#info"  // XEP-0030 §3
	nsItems  = "http://jabber.org/protocol/disco#items" // XEP-0030 §4
	nsHashes = "urn:xmpp:hashes:2"                      // XEP-0300

	notify = "+notify" // XEP-0060 §9.2

	maxCaps     = 2000     // sets of capabilities. chosen: more than there are versions of clients in use
	maxCapsSize = 16 << 10 // bytes of the nodes that one set is interested in. chosen: hundreds; clients have a dozen
	maxCapsXML  = 4 << 10  // bytes of a <c/>. chosen: ten hashes
	maxAsking   = 1000     // requests under way. chosen: each is a goroutine
	maxWaiting  = 10000    // resources that wait for one. chosen: a reconnecting server full of one client
	maxOfPair   = 20       // questions of one account to one JID with its resources, waiting ones too. chosen: as many as an account has resources
	maxOfDomain = 200      // requests under way to one domain elsewhere. chosen: a fifth of all; more versions of clients than its users have

	firstSilence = 100 * time.Millisecond // before others with the same capabilities are asked; then twice as long each time. chosen: what one that is near takes
	maxSilence   = time.Second            // at most. chosen: what most that are far take
)

// interest is what one resource wants to be notified of. It is replaced, never changed.
type interest struct {
	raw   string // the capabilities of its presence as XML, to see whether they change
	nodes map[string]struct{}
	known bool           // of a session here: it is not being asked
	comes []SubscribedTo // what its account had subscribed to when it became available, while the last items of that are still to be sent
	again bool           // they could not be found out: the next presence is a reason to try it again
	size  int            // of what it alone holds
}

// wants reports whether the resource is interested in a node.
func (i *interest) wants(node string) bool {
	if i == nil {
		return false
	}
	_, ok := i.nodes[node]
	return ok
}

type interestKey struct{}

// interestOf is the interest of a local session.
func interestOf(s xmpp.Session) *interest {
	i, _ := s.Value(interestKey{}).(*interest)
	return i
}

// capability is what presence says of a set of capabilities: a hash, and the node to ask for it.
type capability struct {
	algo, hash string // "" without a hash that is known: what is learnt counts for one resource
	node       string // for disco#info
	second     bool   // XEP-0390
}

// rawCaps are the capabilities in a presence as XML, "" when there are none, or they are too large.
func rawCaps(p *xmpp.Stanza) string {
	var raw []byte
	for _, c := range p.Children() {
		if c.Local == "c" && (c.Space == caps.NS || c.Space == caps.NS2) {
			raw = append(raw, c.XML()...)
		}
	}
	if len(raw) > maxCapsXML {
		return ""
	}
	return string(raw)
}

// readCaps reads the capabilities in a presence: XEP-0390 before XEP-0115, and of its hashes the first that is known.
func readCaps(p *xmpp.Stanza) (c capability, ok bool) {
	if el, has := p.Child(caps.NS2, "c"); has {
		var v struct {
			Hashes []struct {
				Algo string `xml:"algo,attr"`
				Hash string `xml:",chardata"`
			} `xml:"urn:xmpp:hashes:2 hash"`
		}
		if el.Decode(&v) == nil {
			for _, h := range v.Hashes {
				hash := strings.TrimSpace(h.Hash)
				if _, known := caps.Hash(h.Algo); known && hash != "" {
					return capability{algo: strings.ToLower(h.Algo), hash: hash, node: caps.NS2 + "#" + h.Algo + "." + hash, second: true}, true // XEP-0390 §4.3
				}
			}
		}
	}
	el, has := p.Child(caps.NS, "c")
	if !has {
		return c, false
	}
	var v struct {
		Hash string `xml:"hash,attr"`
		Node string `xml:"node,attr"`
		Ver  string `xml:"ver,attr"`
	}
	if el.Decode(&v) != nil || v.Ver == "" {
		return c, false
	}
	c = capability{node: v.Node + "#" + v.Ver} // XEP-0115 §6.2
	if _, known := caps.Hash(v.Hash); known {
		c.algo, c.hash = strings.ToLower(v.Hash), v.Ver
	}
	return c, true
}

// key names the capability in the cache, "" for one that is not cached.
func (c capability) key() string {
	if c.hash == "" {
		return ""
	}
	generation := "1 "
	if c.second {
		generation = "2 "
	}
	return generation + c.algo + " " + c.hash
}

// verified reports whether an answer has the hash that presence said: XEP-0115 §5.4. Only then may it count for other resources, because anybody
// could fill the cache otherwise.
func (c capability) verified(query *xmpp.Element) bool {
	h, ok := caps.Hash(c.algo)
	if !ok || c.hash == "" {
		return false
	}
	ver := caps.Ver
	if c.second {
		ver = caps.Ver2
	}
	got, err := ver(query, h)
	return err == nil && got == c.hash
}

// nodesOf are the nodes in which an answer shows interest. Of one that is verified by XEP-0115 they are read from the string that was hashed: another
// answer with that hash, in which features look like something else, must not come to another result (§8.3).
func (c capability) nodesOf(query *xmpp.Element, verified bool) map[string]struct{} {
	if verified && !c.second {
		return interests(caps.Parts(query))
	}
	var features []string
	for _, f := range query.Children {
		if f.Local == "feature" && f.Space == nsInfo {
			features = append(features, f.Attr("var"))
		}
	}
	return interests(features)
}

// sizeOf is about what a set of nodes holds.
func sizeOf(nodes map[string]struct{}) int {
	size := 0
	for n := range nodes {
		size += len(n) + 32
	}
	return size
}

// interests are the nodes of which features say that their events are wanted.
func interests(features []string) map[string]struct{} {
	nodes := make(map[string]struct{})
	size := 0
	for _, f := range features {
		if n, ok := strings.CutSuffix(f, notify); ok && n != "" {
			if size += len(n) + 32; size > maxCapsSize {
				break
			}
			nodes[strings.Clone(n)] = struct{}{}
		}
	}
	return nodes
}

// asking is what is being asked about capabilities.
type asking struct {
	ctx    context.Context // ends with the module
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	closed  bool
	waiting int
	under   map[string]*line // by the capability's key
	running int
	pairs   map[string]int // questions, by the account and the bare JID that is asked
	domains map[string]int // requests under way, by the domain that is asked
}

// line are the questions with the same capabilities, of which one true answer serves all. First one is asked, and while those that are asked do not
// answer, or not truly, twice as many as before: neither are all clients of a kind asked at once, nor do some that are silent hold up the others.
type line struct {
	waiting []*question
	asked   int // requests under way
	width   int // how many are asked next
	silence time.Duration
	timer   *time.Timer // ends that silence; one of wg while it runs. nil while the line is idle
}

// question is one resource of which the interest is not known.
type question struct {
	of        capability
	from, to  jid.JID
	elsewhere bool // to is of another server
	then      func(ctx context.Context, nodes map[string]struct{})
	lost      func() // instead of then, when there is no answer
}

func (q *question) pair() string { return q.from.String() + " " + q.to.Bare().String() }

func (a *asking) init() {
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.under, a.pairs, a.domains = make(map[string]*line), make(map[string]int), make(map[string]int)
}

// less takes one off a count. The caller holds mu of asking.
func less(counts map[string]int, key string) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// close ends what is under way and waits for it. Those that wait for it are forgotten.
func (a *asking) close() {
	a.mu.Lock()
	a.closed = true
	for _, l := range a.under {
		a.leave(l)
		a.stop(l)
	}
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
}

// learn finds out what a resource is interested in and calls then, at once when the capabilities are known, on a goroutine of its own when the
// resource has to be asked. When it does not answer, or too much is being asked already, lost is called. What one contact and one server can make
// this server ask is bounded, so that nobody is not asked because of them.
func (m *Module) learn(ctx context.Context, q *question) {
	key := q.of.key()
	if nodes, ok, _ := m.caps.Get(key); ok && key != "" {
		q.then(ctx, nodes)
		return
	}
	if !m.asking.take(m, q, key) {
		q.lost()
	}
}

// take begins a question or lets it wait; false when there is no place for it.
func (a *asking) take(m *Module, q *question, key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	pair := q.pair()
	l := a.under[key]
	switch {
	case a.closed || a.pairs[pair] >= maxOfPair:
		return false
	case key != "" && l != nil:
		if l.asked < l.width && a.room(q) {
			a.start(m, l, q, key) // those who are being asked may have been silent for long; those who wait had no room
			a.watch(m, l, key)
			break
		}
		if a.waiting >= maxWaiting {
			return false
		}
		a.waiting++
		l.waiting = append(l.waiting, q)
		a.watch(m, l, key)
	case !a.room(q):
		return false
	default:
		l = &line{width: 1, silence: firstSilence}
		a.start(m, l, q, key)
		if key != "" {
			a.under[key] = l
			a.watch(m, l, key)
		}
	}
	a.pairs[pair]++
	return true
}

// room reports whether one more may be asked. The caller holds mu.
func (a *asking) room(q *question) bool {
	return a.running < maxAsking && (!q.elsewhere || a.domains[q.to.Domainpart()] < maxOfDomain)
}

// start asks one more. The caller holds mu.
func (a *asking) start(m *Module, l *line, q *question, key string) {
	l.asked++
	a.running++
	a.domains[q.to.Domainpart()]++
	a.wg.Go(func() { m.ask(q, key) })
}

// idle reports whether a line need not go on: nobody waits, and who comes next is asked at once.
func (l *line) idle() bool { return len(l.waiting) == 0 && l.asked < l.width }

// watch lets a line go on after a silence. The caller holds mu.
func (a *asking) watch(m *Module, l *line, key string) {
	if l.timer != nil || l.idle() {
		return
	}
	a.wg.Add(1)
	l.timer = time.AfterFunc(l.silence, func() {
		defer a.wg.Done()
		m.more(l, key)
	})
}

// stop ends the timer of a line. The caller holds mu.
func (a *asking) stop(l *line) {
	if l.timer != nil && l.timer.Stop() {
		a.wg.Done()
	}
	l.timer = nil
}

// leave empties a line. The caller holds mu.
func (a *asking) leave(l *line) (left []*question) {
	left, l.waiting = l.waiting, nil
	a.waiting -= len(left)
	for _, q := range left {
		less(a.pairs, q.pair())
	}
	return left
}

// more asks twice as many as before of those that wait for the same answer, as far as there is room.
func (m *Module) more(l *line, key string) {
	a := &m.asking
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.under[key] != l {
		return
	}
	l.timer = nil
	l.silence = min(2*l.silence, maxSilence)
	if !l.idle() {
		l.widen()
	}
	a.advance(m, l, key)
	a.watch(m, l, key)
}

func (l *line) widen() { l.width = min(2*l.width, maxAsking) }

// advance asks those whose turn has come. Who has no room is passed over and stays in its place, so that a domain that is silent holds up itself alone.
// The caller holds mu.
func (a *asking) advance(m *Module, l *line, key string) {
	left := l.waiting[:0]
	for i, q := range l.waiting {
		if l.asked >= l.width || a.running >= maxAsking {
			left = append(left, l.waiting[i:]...)
			break
		}
		if !a.room(q) {
			left = append(left, q)
			continue
		}
		a.waiting--
		a.start(m, l, q, key)
	}
	clear(l.waiting[len(left):])
	l.waiting = left
}

// ask asks one resource.
func (m *Module) ask(q *question, key string) {
	a := &m.asking
	query, err := m.discover(a.ctx, q)
	verified := err == nil && q.of.verified(query)
	var nodes map[string]struct{}
	if err == nil {
		nodes = q.of.nodesOf(query, verified)
	}
	var served []*question
	a.mu.Lock()
	if verified {
		m.caps.Put(key, nodes, 1, 0)
	}
	less(a.pairs, q.pair())
	less(a.domains, q.to.Domainpart())
	a.running--
	if l := a.under[key]; l != nil {
		l.asked--
		if !verified {
			l.widen()
		} else {
			served = a.leave(l)
		}
		if !a.closed {
			a.advance(m, l, key)
		}
		if l.asked == 0 && len(l.waiting) == 0 { // else there is no room until the timer ends
			a.stop(l)
			delete(a.under, key)
		}
	}
	a.mu.Unlock()
	if err == nil {
		m.answer(q, nodes)
	} else {
		q.lost()
	}
	for _, s := range served {
		m.answer(s, nodes)
	}
}

// answer gives a question its answer within the usual time.
func (m *Module) answer(q *question, nodes map[string]struct{}) {
	ctx, cancel := context.WithTimeout(m.asking.ctx, sendTimeout)
	defer cancel()
	q.then(ctx, nodes)
}

// discover asks a resource for its disco#info: XEP-0115 §6.2, XEP-0060 §9.2.
func (m *Module) discover(ctx context.Context, q *question) (*xmpp.Element, error) {
	answer, err := m.srv.Ask(ctx, xmpp.New(xmpp.IQ, string(stanza.GetIQ), q.to, q.from, xmpp.El(nsInfo, "query", "node", q.of.node)))
	if err != nil {
		return nil, err
	}
	c, ok := answer.Child(nsInfo, "query")
	if answer.Type != "result" || !ok {
		return nil, errors.New("no disco#info")
	}
	return c.Element()
}

const (
	maxRemote      = 50_000   // resources of other servers that are remembered. chosen: some 30 MB
	maxRemoteSize  = 32 << 20 // bytes of what they alone are interested in. chosen: the same again; what is in the cache of capabilities does not count
	maxRemoteOfOne = 20       // resources of one contact. chosen: as many as an account here has
)

// remotes are the available resources of contacts at other servers, as their presence to accounts here tells: XEP-0163 §4.3.
type remotes struct {
	mu sync.Mutex
	// Guarded by mu.
	of    map[string]map[string]map[string]*list.Element // by account, bare JID and resource
	order *list.List                                     // of *remote, the one that was heard last in front
	size  int
	heard uint64 // grows by every presence
}

type remote struct {
	account, bare string
	jid           jid.JID // full
	interest      *interest
	heard         uint64
}

func (r *remotes) init() {
	r.of, r.order = make(map[string]map[string]map[string]*list.Element), list.New()
}

// interested are the resources of a bare JID that want to be notified of a node of the account.
func (r *remotes) interested(account, bare, node string) (all []jid.JID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.of[account][bare] {
		if x := e.Value.(*remote); x.interest.wants(node) {
			all = append(all, x.jid)
		}
	}
	return all
}

// each calls f with every resource of a bare JID that the account knows.
func (r *remotes) each(account, bare string, f func(jid.JID, *interest)) {
	r.mu.Lock()
	var all []remote
	for _, e := range r.of[account][bare] {
		all = append(all, *e.Value.(*remote))
	}
	r.mu.Unlock()
	for _, x := range all {
		f(x.jid, x.interest)
	}
}

// put remembers a resource; it returns what was known of it before, nil for nothing.
func (r *remotes) put(account string, full jid.JID, i *interest) (before *interest) {
	bare := full.Bare().String()
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.of[account][bare][full.Resourcepart()]; e != nil {
		before = e.Value.(*remote).interest
		r.set(e, i)
		return before
	}
	if r.of[account] == nil {
		r.of[account] = make(map[string]map[string]*list.Element)
	}
	if r.of[account][bare] == nil {
		r.of[account][bare] = make(map[string]*list.Element)
	}
	if of := r.of[account][bare]; len(of) >= maxRemoteOfOne {
		var oldest *list.Element
		for _, e := range of {
			if oldest == nil || e.Value.(*remote).heard < oldest.Value.(*remote).heard {
				oldest = e
			}
		}
		r.remove(oldest)
	}
	r.heard++
	r.of[account][bare][full.Resourcepart()] = r.order.PushFront(&remote{account, bare, full, i, r.heard})
	r.size += i.size
	r.bound()
	return nil
}

// replace is put for what was learnt of a resource; false when was is not known of it any more.
func (r *remotes) replace(account string, full jid.JID, was, i *interest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.of[account][full.Bare().String()][full.Resourcepart()]
	if e == nil || e.Value.(*remote).interest != was {
		return false
	}
	r.set(e, i)
	return true
}

// set is called with mu held.
func (r *remotes) set(e *list.Element, i *interest) {
	x := e.Value.(*remote)
	r.size += i.size - x.interest.size
	r.heard++
	x.interest, x.heard = i, r.heard
	r.order.MoveToFront(e)
	r.bound()
}

// bound forgets those that were not heard for the longest time. The caller holds mu.
func (r *remotes) bound() {
	for r.order.Len() > maxRemote || r.size > maxRemoteSize {
		r.remove(r.order.Back())
	}
}

// known is what is known of a resource, nil for nothing.
func (r *remotes) known(account string, full jid.JID) *interest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.of[account][full.Bare().String()][full.Resourcepart()]; e != nil {
		return e.Value.(*remote).interest
	}
	return nil
}

// drop forgets a resource, or all of a bare JID.
func (r *remotes) drop(account string, who jid.JID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for resource, e := range r.of[account][who.Bare().String()] {
		if who.Resourcepart() == "" || resource == who.Resourcepart() {
			r.remove(e)
		}
	}
}

// forget forgets all that an account knows.
func (r *remotes) forget(account string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, all := range r.of[account] {
		for _, e := range all {
			r.remove(e)
		}
	}
}

// remove takes an entry out. The caller holds mu.
func (r *remotes) remove(e *list.Element) {
	x := r.order.Remove(e).(*remote)
	r.size -= x.interest.size
	delete(r.of[x.account][x.bare], x.jid.Resourcepart())
	if len(r.of[x.account][x.bare]) == 0 {
		delete(r.of[x.account], x.bare)
	}
	if len(r.of[x.account]) == 0 {
		delete(r.of, x.account)
	}
}

// sameRaw reports whether a presence has the capabilities that are known already, without parsing them.
func (i *interest) sameRaw(raw string) bool {
	return i != nil && !i.again && i.raw == raw
}
