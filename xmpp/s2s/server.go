// Package s2s is the servers' side of the server: streams with other servers in both directions (RFC 6120, XEP-0220, XEP-0178, XEP-0288, XEP-0368),
// and one queue for each pair of domains.
package s2s

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/listen"
	"balcony/xmpp/router"
	"balcony/xmpp/stream"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// Config of streams with other servers.
type Config struct {
	// TLSTimeout is how long a peer has to finish TLS, from the moment it is accepted.
	TLSTimeout time.Duration
	// LoginTimeout is how long a stream may take until a domain is proven.
	LoginTimeout time.Duration
	// ConnectTimeout is how long finding and opening a stream may take in all.
	ConnectTimeout time.Duration
	// Unauthenticated are the limits of a stream before a domain is proven.
	Unauthenticated stream.Limits
	// Authenticated are the limits of a stream after that.
	Authenticated stream.Limits
	// Queue is how many bytes may wait for one pair of domains.
	Queue int
	// QueueTotal is how many bytes may wait for all of them, with what was sent and is not acknowledged; one sender may have an eighth of it.
	QueueTotal int
	// QueueTime is how long a stanza may wait for a connection.
	QueueTime time.Duration
	// IdleTime is how long a stream stays open that carries nothing. 0: for ever.
	IdleTime time.Duration
	// Rate is how many bytes one domain may send in a second, sustained, over all of its streams; reading is delayed beyond that. 0: no limit.
	Rate int
	// ConnectionsPerAddress is how many connections one address may have; loopback is exempt. 0: no limit.
	ConnectionsPerAddress int
	// Proxies carry the connections of other servers to this one.
	Proxies listen.Proxies
	// Management bounds stream management.
	Management Management
	// Bidi sends over streams that peers have opened, and lets them do the same (XEP-0288).
	Bidi bool
	// DNS is the resolver to ask, as host:port; empty: the system's.
	DNS string
	// Policy says whom this server talks to.
	Policy Policy
}

// DefaultConfig returns the limits of a server that nobody configured.
func DefaultConfig() Config {
	return Config{
		TLSTimeout:            10 * time.Second,
		LoginTimeout:          30 * time.Second,
		ConnectTimeout:        45 * time.Second, // chosen: a target that is silent and one that works, before a client gives up
		Unauthenticated:       stream.BeforeAuth,
		Authenticated:         stream.DefaultLimits(),
		Queue:                 1 << 20,
		QueueTotal:            64 << 20, // chosen: the full queues of 64 domains
		QueueTime:             time.Minute,
		IdleTime:              10 * time.Minute,
		Rate:                  2 << 20,
		ConnectionsPerAddress: 64,
		Management:            Management{Stanzas: 5000, Bytes: 4 << 20, Resumption: 15 * time.Minute},
		Bidi:                  true,
	}
}

// Certificates gives TLS to connections.
type Certificates interface {
	// PeerConfig is the configuration of the accepting side for a domain, which asks for a certificate and leaves it to the caller to verify; the
	// empty domain leaves the choice to SNI.
	PeerConfig(domain string, alpn ...string) *tls.Config
	// DialConfig is the configuration of the connecting side, with the certificate of a domain of this server.
	DialConfig(local string, alpn ...string) *tls.Config
	// Roots are the authorities that are trusted.
	Roots() *x509.CertPool
}

// Store keeps what accounts have sent to other servers until those have it.
type Store interface {
	// AppendUnsent keeps a stanza behind those that are there. It does not block; the row is 0 when the store takes nothing. The commit ends with
	// auth.ErrNoAccount when its sender has no account.
	AppendUnsent(s *xmpp.Stanza, at time.Time) (row int64, c *xmpp.Commit)
	// Unsent reads up to limit of them behind a row, in order.
	Unsent(ctx context.Context, after int64, limit int) ([]xmpp.Unsent, error)
	// RemoveUnsent forgets some.
	RemoveUnsent(ctx context.Context, rows []int64) error
}

// Server is all connections with other servers.
type Server struct {
	// Static after New.
	router   *router.Router
	certs    Certificates
	store    Store
	verifier verifier
	secret   []byte // of dialback keys
	log      *slog.Logger
	metrics  *metrics
	nextID   atomic.Uint64
	config   atomic.Pointer[Config]
	budgets  budgets
	recent   *recent
	turns    turns

	pending pending

	listeners *listen.Listeners

	verifying chan struct{} // holds a token for each dialback key that is being verified

	ctx    context.Context // ends when the server begins to close
	cancel context.CancelFunc
	work   context.Context // ends when the last connection has ended, or was given up
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	open      map[*conn]struct{}
	asking    map[netip.Addr]int // keys that are being verified
	links     map[pair]*link
	resumable map[string]*session // of peers, by SM-ID
	kept      map[string]int      // how many of them are of a domain
	closing   bool
}

// Bounds of what other servers and users can make this one hold. chosen: far above what a large server needs.
const (
	maxLinks     = 20_000
	maxResumable = 20_000
	maxVerifying = 64
	// maxVerifyingOf is for one address: whoever has many domains there waits for some of them.
	maxVerifyingOf = 16
	// maxResumableOf is of one domain: a peer that resumes its streams has one or two.
	maxResumableOf = 50
)

// New makes a server without listeners. secret is what its dialback keys are made of.
func New(cfg Config, r *router.Router, certs Certificates, store Store, secret []byte, registerer prometheus.Registerer, log *slog.Logger) *Server {
	s := &Server{router: r, certs: certs, store: store, secret: secret, log: log, verifier: verifier{certs.Roots, time.Now},
		verifying: make(chan struct{}, maxVerifying),
		open:      make(map[*conn]struct{}), asking: make(map[netip.Addr]int), listeners: listen.New(log),
		links: make(map[pair]*link), resumable: make(map[string]*session), kept: make(map[string]int)}
	s.SetConfig(cfg)
	s.metrics = newMetrics(registerer, s)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work, s.stop = context.WithCancel(context.Background())
	s.recent = newRecent()
	s.tasks.Add(1)
	go s.watch()
	s.tasks.Go(s.forget)
	return s
}

// SetConfig changes the limits of new connections, and the policy.
func (s *Server) SetConfig(cfg Config) {
	s.config.Store(&cfg)
	s.listeners.SetProxies(cfg.Proxies)
}

// ours reports whether domain is one of this server's: it has accounts, or is a host beside one that has.
func (s *Server) ours(domain string) bool {
	if s.router.Serves(domain) {
		return true
	}
	_, _, ok := s.router.HostAt(domain)
	return ok
}

// Send is router.Remote: it takes a stanza for another server, or returns the error for its sender.
func (s *Server) Send(ctx context.Context, st *xmpp.Stanza) error {
	p := pair{st.From.Domainpart(), st.To.Domainpart()}
	if !s.ours(p.local) {
		return xmpp.ErrDrop // this server speaks for nobody else
	}
	if p.remote == "" {
		return xmpp.ErrRemoteNotFound
	}
	if !s.config.Load().Policy.allowed(p.remote) {
		return xmpp.ErrNotAllowed
	}
	it := &item{stanza: st, since: time.Now()}
	cfg := s.config.Load()
	if err := s.refuses(p, cfg, st.Size()); err != nil {
		return err
	}
	if !s.pending.take(it, cfg.QueueTotal) {
		return xmpp.Fail(stanza.Wait, stanza.ResourceConstraint, "too much waits for other servers")
	}
	err := s.record(ctx, it)
	if err == nil {
		err = s.enqueue(ctx, p, cfg, it)
	}
	if err != nil {
		s.done(it)
	}
	return err
}

// refuses returns the error for the sender of so many bytes, before anything is done for them.
func (s *Server) refuses(p pair, cfg *Config, size int) error {
	l := s.link(p)
	if l == nil {
		return xmpp.ErrResourceConstraint
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.admit(cfg, size)
}

func (s *Server) enqueue(ctx context.Context, p pair, cfg *Config, it *item) error {
	for {
		l := s.link(p)
		if l == nil {
			return xmpp.ErrResourceConstraint
		}
		err, gone := l.enqueue(ctx, cfg, it)
		if !gone {
			return err
		}
	}
}

// link is that of a pair; nil when there are too many.
func (s *Server) link(p pair) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[p]
	if l == nil || l.ended() {
		if l == nil && len(s.links) >= maxLinks && !s.makeRoom() {
			return nil
		}
		l = &link{server: s, pair: p}
		s.links[p] = l
	}
	return l
}

// makeRoom drops a link that only remembers failures. It is called with mu held.
func (s *Server) makeRoom() bool {
	looks := 100 // chosen: finds one at once when they are what fills the table
	for p, l := range s.links {
		l.mu.Lock()
		l.gone = l.gone || l.unused()
		gone := l.gone
		l.mu.Unlock()
		if gone {
			delete(s.links, p)
			return true
		}
		if looks--; looks == 0 {
			break
		}
	}
	return false
}

func (l *link) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone
}

// offer lets the stanzas of a pair go over a connection that the peer has opened (XEP-0288).
func (s *Server) offer(p pair, c *conn) {
	if !c.cfg.Bidi {
		return
	}
	if l := s.link(p); l != nil {
		l.attach(c, nil)
	}
}

// resumed is told that a peer has resumed its stream: what waited for that goes on over it, or elsewhere when the new connection has not proven the
// pair.
func (s *Server) resumed(sess *session, c *conn) {
	for _, l := range s.held(sess) {
		if ok, _ := c.mayUse(l.pair); ok {
			l.attach(c, sess)
		} else {
			l.release(sess)
		}
	}
}

func (s *Server) held(sess *session) (list []*link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.links {
		l.mu.Lock()
		if l.hold == sess {
			list = append(list, l)
		}
		l.mu.Unlock()
	}
	return list
}

// pairs groups items by their domains, those of a pair in their order.
func pairs(list []*item) (order []pair, by map[pair][]*item) {
	by = make(map[pair][]*item)
	for _, it := range list {
		p := pair{it.stanza.From.Domainpart(), it.stanza.To.Domainpart()}
		if by[p] == nil {
			order = append(order, p)
		}
		by[p] = append(by[p], it)
	}
	return order, by
}

// repeat marks items that the peer may have: all but those that were never written whole.
func repeat(list, unwritten []*item) []*item {
	for _, it := range list {
		it.again = it.again || !slices.Contains(unwritten, it)
	}
	return list
}

// requeue gives items that did not reach their peer back to their links.
func (s *Server) requeue(list []*item) {
	order, by := pairs(list)
	for _, p := range order {
		for {
			l := s.link(p)
			if l == nil {
				s.fail(by[p], xmpp.ErrResourceConstraint)
				break
			}
			if !l.front(by[p]) {
				l.Flush()
				l.kick()
				break
			}
		}
	}
}

// fail tells the senders of items that they could not be delivered.
func (s *Server) fail(list []*item, reason error) {
	if len(list) == 0 {
		return
	}
	e, _ := xmpp.AsStanzaError(reason)
	var b xmpp.Batch
	ctx, cancel := context.WithTimeout(xmpp.WithBatch(s.work, &b), 10*time.Second) // chosen: like the end of a client's session
	defer cancel()
	for _, it := range list {
		s.metrics.failed.WithLabelValues(string(e.Stanza.Condition)).Inc()
		_ = listen.Guard(s.log, nil, func() error { s.router.Fail(ctx, it.stanza, reason); return nil })
	}
	_ = listen.Guard(s.log, nil, func() error { b.End(ctx); return nil })
	s.done(list...)
}

// unfinished reports whether a stream that ended with err may be resumed (XEP-0198 §6).
func unfinished(err error) bool {
	var se streamerr.Error
	var pe peerError
	switch {
	case errors.Is(err, errClosed), errors.Is(err, errIdle), errors.Is(err, errSpare), errors.Is(err, errNotAllowed):
		return false
	case errors.As(err, &se):
		return se.Err == streamerr.ConnectionTimeout.Err || se.Err == streamerr.Conflict.Err
	case errors.As(err, &pe):
		return pe.condition == streamerr.ConnectionTimeout.Err || pe.condition == streamerr.SystemShutdown.Err
	}
	return true
}

// lost ends a connection that has carried stanzas, for err: what the peer has not got goes back, or waits for the stream to be resumed.
func (s *Server) lost(c *conn, err error) {
	defer s.gone(c)
	c.mu.Lock()
	if c.retired && c.reason == nil {
		err = errIdle
	}
	c.mu.Unlock()
	c.Close(err)
	c.finish(err)
	var left, back []*item
	if c.out != nil {
		left = c.out.stop()
		back = c.unconfirmedAt(err, left)
	}
	c.mu.Lock()
	sess, links := c.session, c.links
	c.links = nil
	c.mu.Unlock()
	if sess != nil {
		sess.mu.Lock()
		wait := sess.id != "" && unfinished(err) && s.ctx.Err() == nil && !sess.over
		sess.conn, sess.asked = nil, false
		sess.expires = time.Now().Add(sess.max)
		if wait && !c.outgoing && len(links) > 0 {
			sess.expires = time.Now().Add(min(sess.max, holdTime))
		}
		sess.mu.Unlock()
		back = nil
		if !wait {
			back = repeat(sess.take(), left)
			if errors.As(err, new(peerError)) && !unfinished(err) {
				back = s.tired(back, left, err)
			}
			s.drop(sess)
			sess = nil
		}
	}
	keep := sess
	if sess != nil && c.outgoing && !c.both() && sess.empty() {
		keep = nil // nothing depends on it
	}
	order, by := pairs(back)
	for _, l := range links {
		if !l.detach(c, keep, by[l.pair]) {
			delete(by, l.pair)
		}
	}
	for _, p := range order {
		s.requeue(by[p]) // of domains whose link has another connection, or none
	}
	for _, l := range links {
		l.kick()
	}
}

// maxEnds is how many streams a peer may end with an error while a stanza is on them. chosen: one such error may be for another stanza; a stanza that ends
// every stream keeps everything else back.
const maxEnds = 3

// tired gives items back to their senders that were written to too many streams that the peer has ended with an error, the last time with err, and returns the rest.
func (s *Server) tired(list, unwritten []*item, err error) (rest []*item) {
	var tired []*item
	for _, it := range list {
		if !slices.Contains(unwritten, it) {
			it.ends++
		}
		if it.ends >= maxEnds {
			tired = append(tired, it)
		} else {
			rest = append(rest, it)
		}
	}
	s.fail(tired, refusal(err))
	return rest
}

// both reports whether the stream carries stanzas in both directions.
func (c *conn) both() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bidi
}

func (s *session) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unacked) == 0
}

// abandon ends a connection that carries no stanzas.
func (c *conn) abandon(err error) {
	defer c.server.gone(c)
	if err == nil {
		err = errIdle
	}
	c.Close(err)
	c.finish(err)
	if c.out != nil {
		c.out.stop()
	}
}

// retire ends a stream that is not needed any more: nothing is sent after that, and what the peer has sent is still handled until it has closed its
// side (RFC 6120 §4.4).
func (c *conn) retire(why error) {
	c.mu.Lock()
	if c.reason != nil || c.retired {
		c.mu.Unlock()
		return
	}
	c.retired = true
	c.mu.Unlock()
	c.log.Debug("stream ended", "reason", why.Error())
	if c.out.finish([]byte(stream.CloseTag)) {
		_ = c.sock.SetReadDeadline(time.Now().Add(lingerTime))
	}
}

// mayAsk takes a place for the verification of a dialback key of a peer at that address; false when there is none.
func (s *Server) mayAsk(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking[from] >= maxVerifyingOf {
		return false
	}
	s.asking[from]++
	return true
}

func (s *Server) asked(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking[from]--; s.asking[from] == 0 {
		delete(s.asking, from)
	}
}

// keep makes a session of a peer's one that can be resumed; false when there are too many.
func (s *Server) keep(sess *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.resumable) >= maxResumable || s.kept[sess.domain.remote] >= maxResumableOf {
		return false
	}
	s.resumable[sess.id] = sess
	s.kept[sess.domain.remote]++
	return true
}

func (s *Server) session(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resumable[id]
}

// drop forgets a session of a peer's.
func (s *Server) drop(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumable[sess.id] != sess {
		return
	}
	delete(s.resumable, sess.id)
	if s.kept[sess.domain.remote]--; s.kept[sess.domain.remote] == 0 {
		delete(s.kept, sess.domain.remote)
	}
}

// start runs f on a goroutine that Shutdown waits for; false when the server is closing.
func (s *Server) start(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.tasks.Go(f)
	return true
}

// Serve accepts connections until l is closed. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener, mode Mode) error {
	return s.listeners.Serve(l, func(tcp *net.TCPConn, remote netip.AddrPort) { s.accept(tcp, remote, mode) })
}

func (s *Server) accept(tcp *net.TCPConn, remote netip.AddrPort, mode Mode) {
	if c := s.newConn(tcp, remote, s.config.Load(), false, mode); !s.admit(c) {
		_ = tcp.Close()
	}
}

// Take takes a connection that came to another listener and whose TLS handshake, of Certificates.PeerConfig, has chosen ALPN (XEP-0368): t, over
// tcp. It closes t when the stream ends, or at once when it returns an error.
func (s *Server) Take(t *tls.Conn, tcp *net.TCPConn) error {
	c := s.newConn(tcp, listen.Address(t.RemoteAddr()), s.config.Load(), false, DirectTLS) // a proxy may have said for whom it is
	c.taken, c.sock.outer = t, t.NetConn()
	if !s.admit(c) {
		return t.Close()
	}
	return nil
}

// admit serves a connection; false when there are too many of its address, or when the server is closing.
func (s *Server) admit(c *conn) bool {
	if !s.listeners.Take(c.remote.Addr(), c.cfg.ConnectionsPerAddress) {
		s.metrics.refused.WithLabelValues("connections").Inc()
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		s.listeners.Give(c.remote.Addr())
		return false
	}
	s.open[c] = struct{}{}
	s.tasks.Go(c.serve)
	return true
}

// outgoing makes the connection to an endpoint one of this server's.
func (s *Server) outgoing(tcp *net.TCPConn, cfg *Config, at endpoint, p pair) (*conn, error) {
	err := listen.KeepAlive(tcp)
	mode := STARTTLS
	if at.direct {
		mode = DirectTLS
	}
	c := s.newConn(tcp, listen.Address(tcp.RemoteAddr()), cfg, true, mode)
	c.domains = p
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.closing {
		err = context.Canceled
	}
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	s.open[c] = struct{}{}
	return c, nil
}

// gone is called for a connection that has ended, once.
func (s *Server) gone(c *conn) {
	if c.budget != nil {
		c.budget.release()
	}
	close(c.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	if !c.outgoing {
		s.listeners.Give(c.remote.Addr())
	}
}

// Shutdown stops accepting and connecting, ends every stream with <system-shutdown/> and waits for them until ctx is done. What has not been sent
// by then is stored for the next start.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.listeners.Close()
	s.mu.Lock()
	s.closing = true
	open := make([]*conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	s.drain(ctx, open)
	s.cancel()
	for _, c := range open {
		c.Close(streamerr.SystemShutdown)
	}
	listen.Wait(ctx, &s.tasks, func() {
		s.mu.Lock()
		for c := range s.open {
			c.cut()
		}
		s.mu.Unlock()
		s.stop()
	})
	err = errors.Join(err, s.save())
	s.stop()
	return err
}

// drainTime is how long the peers have to acknowledge what was sent before the server stops: what they have acknowledged is not sent again after
// the next start. chosen: they do at once, or are away.
const drainTime = time.Second

func (s *Server) drain(ctx context.Context, open []*conn) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	for _, c := range open {
		for ctx.Err() == nil {
			sess := c.managed()
			if sess == nil || sess.empty() || c.ended() != nil {
				break
			}
			c.askAck(sess)
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// save stores what waits and is not stored yet, after the last connection has ended. What nobody would miss, or could answer any more, goes back to
// its senders.
func (s *Server) save() error {
	var list, drop []*item
	s.mu.Lock()
	away := slices.Collect(maps.Values(s.resumable))
	s.mu.Unlock()
	for _, sess := range away { // before what waits behind it in the links
		list = append(list, sess.take()...)
	}
	for _, l := range s.all() {
		l.mu.Lock()
		if l.resume != nil {
			list = append(list, l.resume.take()...)
		}
		list = append(list, l.queue...)
		l.queue, l.bytes, l.resume, l.hold = nil, 0, nil, nil
		l.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // chosen: within the time that a stop may take
	defer cancel()
	commits := make(map[*item]*xmpp.Commit)
	for _, it := range list {
		switch {
		case it.row != 0:
		case s.account(it.stanza) && (it.stanza.Kind == xmpp.Message || subscribes(it.stanza)):
			_, commits[it] = s.store.AppendUnsent(it.stanza, it.since)
		default:
			drop = append(drop, it)
		}
	}
	var err error
	for it, c := range commits {
		if one := c.Wait(ctx); one != nil && !errors.Is(one, auth.ErrNoAccount) {
			err = one
			drop = append(drop, it)
		}
	}
	s.fail(drop, xmpp.ErrRemoteTimeout)
	return errors.Join(err, s.forgetAll(ctx))
}

func (s *Server) all() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*link, 0, len(s.links))
	for _, l := range s.links {
		list = append(list, l)
	}
	return list
}

// watch ends what has waited or been idle too long: one goroutine for all, no timer each.
func (s *Server) watch() {
	defer s.tasks.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			s.check(now)
		}
	}
}

func (s *Server) check(now time.Time) {
	s.mu.Lock()
	open := make([]*conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	var waiting []*session
	for _, sess := range s.resumable {
		waiting = append(waiting, sess)
	}
	s.mu.Unlock()
	s.budgets.sweep(now, s.config.Load().Rate)
	for _, c := range open {
		c.check(now)
	}
	for _, sess := range waiting {
		sess.mu.Lock()
		over := sess.conn == nil && now.After(sess.expires)
		sess.over = sess.over || over
		sess.mu.Unlock()
		if over {
			s.drop(sess)
			left := repeat(sess.take(), nil)
			held := s.held(sess)
			s.requeue(left)
			for _, l := range held {
				l.release(sess)
			}
		}
	}
	for _, l := range s.all() {
		l.expire(now)
		if l.leave(now) {
			s.mu.Lock()
			if s.links[l.pair] == l {
				delete(s.links, l.pair)
			}
			s.mu.Unlock()
		}
	}
}

// check ends a connection that is idle, that its policy does not allow any more, or whose peer does not acknowledge.
func (c *conn) check(now time.Time) {
	last := c.lastUse.Load()
	if last == 0 {
		return // it is being negotiated, which has its own deadline
	}
	policy := &c.server.config.Load().Policy
	allowed := true
	if c.outgoing { // its domains are static by now; of a stream that the peer opened they are the reader's
		allowed = policy.allowed(c.domains.remote) && (c.valid || policy.dialback(c.domains.remote))
	}
	c.mu.Lock()
	for p, how := range c.proven {
		allowed = allowed && policy.allowed(p.remote) && (how != Dialback || c.outgoing && p == c.domains || policy.dialback(p.remote))
	}
	sess := c.session
	c.mu.Unlock()
	if !allowed {
		c.Close(streamerr.PolicyViolation)
		return
	}
	waits := false
	if sess != nil {
		sess.mu.Lock()
		late := sess.conn == c && sess.asked && now.Sub(sess.askedAt) > ackTimeout
		waits = len(sess.unacked) > 0
		sess.mu.Unlock()
		if late {
			c.Close(errLost)
			return
		}
	}
	c.confirm()
	idle := c.cfg.IdleTime
	if !c.outgoing {
		idle *= 2 // the one who opened it is first to close it
	}
	if idle > 0 && !waits && c.out.bytes() == 0 && now.Sub(time.Unix(0, last)) > idle {
		c.retire(errIdle)
	}
}

type metrics struct {
	auth     *prometheus.CounterVec
	connects *prometheus.CounterVec
	closed   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	verified *prometheus.CounterVec
	failed   *prometheus.CounterVec
	stanzas  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &metrics{
		auth: counter("balcony_s2s_auth_total", "Domains proven on streams with other servers, by direction, method and result.",
			"direction", "method", "result"),
		connects: counter("balcony_s2s_connects_total", "Attempts to open a stream to another server, by result.", "result"),
		closed:   counter("balcony_s2s_closed_total", "Connections with other servers that have ended, by reason.", "reason"),
		refused:  counter("balcony_s2s_refused_total", "What other servers sent and was not taken, by reason.", "reason"),
		verified: counter("balcony_s2s_dialback_keys_total", "Dialback keys that this server has verified for others, by result.", "result"),
		failed: counter("balcony_s2s_undelivered_total", "Stanzas to other servers that were given back to their senders, by condition.",
			"condition"),
		stanzas: counter("balcony_s2s_stanzas_total", "Stanzas from other servers (in) and to other servers (out), by kind.", "kind", "direction"),
	}
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	gauge("balcony_s2s_connections", "Open connections with other servers.", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.open))
	})
	gauge("balcony_s2s_pending_bytes", "Bytes to other servers that wait, or were sent and are not acknowledged.", func() float64 { return float64(s.pending.size()) })
	gauge("balcony_s2s_queue_bytes", "Bytes that wait to be sent to other servers.", func() float64 {
		n := 0
		for _, l := range s.all() {
			l.mu.Lock()
			n += l.bytes
			l.mu.Unlock()
		}
		return float64(n)
	})
	return m
}
