package load

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"balcony/cmd/balcony-bench/client"
)

// messageSize is the size of every chat message on the wire from the sender, in bytes: a sentence with what today's clients add.
const messageSize = 430

// stampLen is the length of a stamp: the time at which a stanza was due, in nanoseconds since epoch, as hexadecimal digits.
const stampLen = 16

var epoch = time.Now()

func pairAccounts(o *Options) []string { return accounts("pair", 2*o.Pairs) }

// message is a chat message whose stamp can be set in place.
type message struct {
	bytes  []byte
	stamps []int // offsets: the id, the body, the origin-id
}

func newMessage(to string) *message { return newMessageIn("", to) }

// newMessageIn is newMessage with a declaration of its namespace, with a leading space.
func newMessageIn(namespace, to string) *message {
	const stamp = "################"
	text := "<message" + namespace + " to='" + to + "' type='chat' id='" + stamp + "'><body>" + stamp + " %s</body>" +
		"<active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>" +
		"<markable xmlns='urn:xmpp:chat-markers:0'/><origin-id xmlns='urn:xmpp:sid:0' id='" + stamp + "'/></message>"
	words := strings.Repeat("my bounty is as boundless as the sea, ", 10)
	text = strings.Replace(text, "%s", words[:max(0, messageSize-len(text)+2)], 1)
	m := &message{bytes: []byte(text)}
	for at := 0; ; at += stampLen {
		i := bytes.Index(m.bytes[at:], []byte(stamp))
		if i < 0 {
			return m
		}
		at += i
		m.stamps = append(m.stamps, at)
	}
}

// at sets the stamp and returns the bytes, which are valid until the next call.
func (m *message) at(due time.Duration) []byte {
	for _, i := range m.stamps {
		putStamp(m.bytes[i:i+stampLen], due)
	}
	return m.bytes
}

func putStamp(b []byte, due time.Duration) {
	const digits = "0123456789abcdef"
	for i := stampLen - 1; i >= 0; i-- {
		b[i] = digits[due&15]
		due >>= 4
	}
}

// stampOf returns the stamp behind a start tag, "<body>" for a message.
func stampOf(stanza []byte, tag string) (time.Duration, bool) {
	i := bytes.Index(stanza, []byte(tag))
	if i < 0 || len(stanza) < i+len(tag)+stampLen {
		return 0, false
	}
	n, err := strconv.ParseInt(string(stanza[i+len(tag):i+len(tag)+stampLen]), 16, 64)
	return time.Duration(n), err == nil
}

// lane is what one session's reader counts.
type lane struct {
	out       *message // to the other account of the pair
	delivered atomic.Int64
	latency   []time.Duration // of messages due in the measured window
	_         [64]byte        // no two counters in one cache line
}

// lanes makes the lanes of a pair scenario: sessions 2i and 2i+1 talk to each other, by bare JID.
func lanes(all sessions) []*lane {
	l := make([]*lane, len(all))
	for i := range all {
		bare, _, _ := strings.Cut(all[i^1].JID, "/")
		l[i] = &lane{out: newMessageIn(all[i].Namespace(), bare)}
	}
	return l
}

func delivered(l []*lane) (n int64) {
	for _, x := range l {
		n += x.delivered.Load()
	}
	return n
}

func gather(l []*lane) []time.Duration {
	var all []time.Duration
	for _, x := range l {
		all = append(all, x.latency...)
	}
	slices.Sort(all)
	return all
}

// messages calls got for each chat message that s receives.
func messages(s *client.Session, got func(due time.Duration) error) error {
	for {
		st, err := s.Next()
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(st, []byte("<message")) {
			continue
		}
		due, ok := stampOf(st, "<body>")
		if !ok {
			return fmt.Errorf("unexpected message %s", st)
		}
		if err := got(due); err != nil {
			return err
		}
	}
}

// overWebSocket is a scenario with clients that connect over WebSocket (RFC 7395).
func overWebSocket(run func(context.Context, *Run) ([]Metric, error)) func(context.Context, *Run) ([]Metric, error) {
	return func(ctx context.Context, r *Run) ([]Metric, error) {
		r.Dialer.WebSocket = r.WebSocket
		return run(ctx, r)
	}
}

// ClosedLoop lets each pair pass messages to and fro, one in flight per pair, as fast as the server delivers.
func ClosedLoop(ctx context.Context, r *Run) ([]Metric, error) {
	all, err := r.login(ctx, pairAccounts(&r.Options), true)
	if err != nil {
		return nil, err
	}
	l := lanes(all)
	var measuring atomic.Bool
	in := read(ctx, all, func(i int, s *client.Session) error {
		me := l[i]
		return messages(s, func(due time.Duration) error {
			me.delivered.Add(1)
			now := time.Since(epoch)
			if measuring.Load() {
				me.latency = append(me.latency, now-due)
			}
			return s.Write(me.out.at(now))
		})
	})
	use, n, err := func() (use usage, n int64, err error) {
		for i := 0; i < len(all); i += 2 {
			// A message of its own: the reader that may already answer uses the lane's.
			if err := all[i].Write(newMessageIn(all[i].Namespace(), strings.Split(all[i+1].JID, "/")[0]).at(time.Since(epoch))); err != nil {
				return use, 0, err
			}
		}
		if err := wait(in.ctx, r.Warmup); err != nil {
			return use, 0, err
		}
		m, err := r.begin(r.Duration)
		if err != nil {
			return use, 0, err
		}
		n = delivered(l)
		measuring.Store(true)
		if err := wait(in.ctx, r.Duration); err != nil {
			return use, 0, err
		}
		measuring.Store(false)
		n = delivered(l) - n
		use, err = r.end(m)
		return use, n, err
	}()
	if stopErr := in.stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return nil, err
	}
	metrics, err := use.perOp("", "message", n)
	return append(metrics, latencies(gather(l))...), err
}

// OpenLoop sends messages at a fixed rate, evenly spaced, each from the next session in turn. Latency counts from the moment at which a
// message was due, so a server that falls behind cannot hide it.
func OpenLoop(ctx context.Context, r *Run) ([]Metric, error) {
	all, err := r.login(ctx, pairAccounts(&r.Options), true)
	if err != nil {
		return nil, err
	}
	l := lanes(all)
	begin := time.Since(epoch) + 10*time.Millisecond
	from, to := begin+r.Warmup, begin+r.Warmup+r.Duration
	in := read(ctx, all, func(i int, s *client.Session) error {
		me := l[i]
		return messages(s, func(due time.Duration) error {
			me.delivered.Add(1)
			if due >= from && due < to {
				me.latency = append(me.latency, time.Since(epoch)-due)
			}
			return nil
		})
	})
	sent := make(chan paced, 1)
	go func() { sent <- pace(in.ctx, all, l, r.Rate, begin, to) }()
	use, n, lost, err := func() (use usage, n, lost int64, err error) {
		if err := wait(in.ctx, from-time.Since(epoch)); err != nil {
			return use, 0, 0, err
		}
		m, err := r.begin(r.Duration)
		if err != nil {
			return use, 0, 0, err
		}
		n = delivered(l)
		if err := wait(in.ctx, to-time.Since(epoch)); err != nil {
			return use, 0, 0, err
		}
		n = delivered(l) - n
		if use, err = r.end(m); err != nil {
			return use, 0, 0, err
		}
		p := <-sent
		sent <- p
		if p.err != nil {
			return use, 0, 0, p.err
		}
		// What is still on its way gets time to arrive.
		for deadline := time.Now().Add(10 * time.Second); delivered(l) < p.n && time.Now().Before(deadline); {
			if err := wait(in.ctx, 20*time.Millisecond); err != nil {
				return use, 0, 0, err
			}
		}
		return use, n, p.n - delivered(l), nil
	}()
	stopErr := in.stop()
	<-sent // the pacer ends with in.ctx
	if err == nil {
		err = stopErr
	}
	if err == nil && lost > 0 {
		err = fmt.Errorf("%d messages were not delivered", lost)
	}
	if err != nil {
		return nil, err
	}
	metrics, err := use.perOp("", "message", n)
	return append(metrics, latencies(gather(l))...), err
}

type paced struct {
	n   int64
	err error
}

// pace writes messages at a rate per second from begin to end.
func pace(ctx context.Context, all sessions, l []*lane, rate int, begin, end time.Duration) (p paced) {
	// The runtime's timers are rounded to milliseconds on an idle machine; a thread that sleeps in the kernel is not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	gap := time.Second / time.Duration(rate)
	for due := begin; due < end && ctx.Err() == nil; due += gap {
		if d := due - time.Since(epoch); d > 0 {
			t := syscall.NsecToTimespec(d.Nanoseconds())
			syscall.Nanosleep(&t, nil)
		}
		i := int(p.n) % len(all)
		if p.err = all[i].Write(l[i].out.at(due)); p.err != nil {
			return p
		}
		p.n++
	}
	return p
}
