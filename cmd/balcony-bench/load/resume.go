package load

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"balcony/cmd/balcony-bench/client"
)

// Sizes of the resumption scenarios that no flag changes. Chosen: windows of a second or more for all servers.
const (
	resumeSessions  = 200
	resumeRounds    = 3
	resumeMessages  = 2
	restartSessions = 2000
	restartAtOnce   = 200 // connections that are being set up at the same time: more than a listener's backlog loses would measure the kernel
	delay           = 50 * time.Millisecond
)

func resumeAccounts(*Options) []string {
	return append(accounts("resume", resumeSessions), "resumesender")
}

// lose cuts the connections of sessions that have acknowledged everything, and has messages sent to them until the server holds them.
func (r *Run) lose(ctx context.Context, all sessions, managed []*client.Managed, sender *client.Session) error {
	for i, s := range all {
		if err := s.Acknowledge(managed[i], r.Dialer.Domain); err != nil {
			return err
		}
		s.Cut()
	}
	if err := wait(ctx, offlineSettle); err != nil { // the servers notice
		return err
	}
	for range resumeMessages {
		for _, m := range managed {
			if err := sender.Write(newMessage(m.JID).at(time.Since(epoch))); err != nil {
				return err
			}
		}
		if err := sender.Ping(r.Dialer.Domain); err != nil {
			return err
		}
	}
	return nil
}

// managed logs accounts in, online and with stream management.
func (r *Run) managed(ctx context.Context, names []string) (sessions, []*client.Managed, error) {
	all, err := r.login(ctx, names, false)
	if err != nil {
		return nil, nil, err
	}
	managed := make([]*client.Managed, len(all))
	err = each(ctx, r.Concurrency, len(all), func(_ context.Context, i int) (err error) {
		if managed[i], err = all[i].Enable(names[i]); err != nil {
			return err
		}
		managed[i].Received++ // its own presence
		return all[i].Online()
	})
	if err != nil {
		all.close()
		return nil, nil, err
	}
	return all, managed, nil
}

// modern logs accounts in with SASL2 and Bind 2, online and with stream management, and gets them tokens.
func (r *Run) modern(ctx context.Context, names []string) (sessions, []*client.Managed, error) {
	all, managed := make(sessions, len(names)), make([]*client.Managed, len(names))
	err := each(ctx, r.Concurrency, len(names), func(ctx context.Context, i int) (err error) {
		managed[i] = &client.Managed{Account: names[i], Agent: fmt.Sprintf("d4565fa7-4d72-4749-b3d3-%012x", i)}
		if all[i], _, err = r.Dialer.DialModern(ctx, client.Modern{Direct: r.Direct, Dial: dialTCP}, managed[i]); err != nil {
			return err
		}
		managed[i].Received++ // its own presence
		return all[i].Online()
	})
	if err != nil {
		all.close()
		return nil, nil, err
	}
	return all, managed, nil
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// Resume cuts the connections of sessions with stream management, sends each two messages, and lets them resume: TCP, STARTTLS, SASL, <resume/>, both
// messages read and acknowledged. Only that is measured.
func Resume(ctx context.Context, r *Run) ([]Metric, error) {
	return r.resumptions(ctx, r.managed, r.Dialer.Resume)
}

// Fast is Resume for clients that come back by token over direct TLS, with everything in one request: SASL2, FAST, inline <resume/>, sent ahead of the
// features.
func Fast(ctx context.Context, r *Run) ([]Metric, error) {
	how := client.Modern{Direct: r.Direct, Token: true, Pipeline: true, Dial: dialTCP}
	return r.resumptions(ctx, r.modern, func(ctx context.Context, m *client.Managed) (*client.Session, error) {
		s, resumed, err := r.Dialer.DialModern(ctx, how, m)
		if err == nil && !resumed {
			s.Close()
			err = fmt.Errorf("%s was not resumed", m.JID)
		}
		return s, err
	})
}

func (r *Run) resumptions(ctx context.Context, login func(context.Context, []string) (sessions, []*client.Managed, error),
	resume func(context.Context, *client.Managed) (*client.Session, error)) ([]Metric, error) {
	names := resumeAccounts(&r.Options)
	names, from := names[:resumeSessions], names[resumeSessions]
	senders, err := r.login(ctx, []string{from}, true)
	if err != nil {
		return nil, err
	}
	defer senders.close()
	all, managed, err := login(ctx, names)
	if err != nil {
		return nil, err
	}
	defer func() { all.close() }()
	var total usage
	for range resumeRounds {
		if err := r.lose(ctx, all, managed, senders[0]); err != nil {
			return nil, err
		}
		use, err := r.measure(ctx, r.Concurrency, len(all), func(ctx context.Context, i int) error {
			s, err := resume(ctx, managed[i])
			if err != nil {
				return err
			}
			all[i] = s
			return r.waiting(s, managed[i])
		})
		if err != nil {
			return nil, err
		}
		total.elapsed, total.cpu, total.rest = total.elapsed+use.elapsed, total.cpu+use.cpu, total.rest+use.rest
		total.driver, total.others = total.driver+use.driver, total.others+use.others
	}
	return total.perOp("", "resumption", resumeRounds*int64(len(all)))
}

// waiting reads the messages that wait for a session that was resumed, and acknowledges them.
func (r *Run) waiting(s *client.Session, m *client.Managed) error {
	missing := resumeMessages
	s.SetReadDeadline(time.Now().Add(30 * time.Second))
	err := s.Until(func(st []byte) bool {
		switch {
		case bytes.HasPrefix(st, []byte("<message")):
			m.Received++
			missing--
		case bytes.HasPrefix(st, []byte("<iq")), bytes.HasPrefix(st, []byte("<presence")):
			m.Received++
		}
		return missing == 0
	})
	if err != nil {
		return fmt.Errorf("%s misses %d messages: %w", s.JID, missing, err)
	}
	s.SetReadDeadline(time.Time{})
	return s.WriteString(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", m.Received))
}

func restartAccounts(*Options) []string {
	return append(accounts("restart", restartSessions), "restartsender")
}

// Restart has many sessions lose their connections, reads what each costs in memory while it waits for its client, restarts the server, and has all
// clients come back at once.
func Restart(ctx context.Context, r *Run) ([]Metric, error) {
	names := restartAccounts(&r.Options)
	names, from := names[:restartSessions], names[restartSessions]
	before, err := r.rss(ctx, min(startSettle, r.Settle))
	if err != nil {
		return nil, err
	}
	senders, err := r.login(ctx, []string{from}, true)
	if err != nil {
		return nil, err
	}
	all, managed, err := r.managed(ctx, names)
	if err != nil {
		senders.close()
		return nil, err
	}
	err = r.lose(ctx, all, managed, senders[0])
	senders.close()
	if err != nil {
		return nil, err
	}
	waiting, err := r.rss(ctx, r.Settle)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := r.Restart(ctx); err != nil {
		return nil, err
	}
	down := time.Since(began)
	restored, err := r.rss(ctx, min(startSettle, r.Settle))
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var back sessions
	use, err := r.measure(ctx, restartAtOnce, len(managed), func(ctx context.Context, i int) error {
		s, err := r.Dialer.Resume(ctx, managed[i])
		if err != nil {
			return err
		}
		mu.Lock()
		back = append(back, s)
		mu.Unlock()
		return r.waiting(s, managed[i])
	})
	back.close()
	if err != nil {
		return nil, err
	}
	per, err := use.perOp("", "resumption", int64(len(managed)))
	return append([]Metric{
		{"waiting", "RSS per waiting session with 2 messages, KiB", float64(waiting-before) / restartSessions},
		{"restored", "RSS after the restart, MiB", float64(restored) / 1024},
		{"down", "SIGTERM to listening again, ms", down.Seconds() * 1e3},
		{"all", "all resumed within, ms", (use.elapsed - use.rest).Seconds() * 1e3},
		{"total", "server CPU for all, ms", use.cpu.Seconds() * 1e3},
	}, per...), err
}

func roundTripAccounts(*Options) []string { return []string{"roundtrips"} }

// RoundTrips counts how many times a client waits for the server, by the time that a login takes over a connection with a known delay. The count
// includes the one that TCP needs.
func RoundTrips(ctx context.Context, r *Run) ([]Metric, error) {
	m := &client.Managed{Account: "roundtrips", Agent: "d4565fa7-4d72-4749-b3d3-740edbf87770"}
	var metrics []Metric
	for _, c := range []struct {
		key, title string
		how        client.Modern
		fresh      bool // without a session to resume
	}{
		{"first", "first login, direct TLS: SASL2 and Bind 2 with PLAIN", client.Modern{Direct: r.Direct}, true},
		{"direct", "resumed by token, direct TLS, sent ahead", client.Modern{Direct: r.Direct, Token: true, Pipeline: true}, false},
		{"direct waiting", "resumed by token, direct TLS, features awaited", client.Modern{Direct: r.Direct, Token: true}, false},
		{"starttls", "resumed by token, STARTTLS, sent ahead", client.Modern{Token: true, Pipeline: true}, false},
		{"starttls waiting", "resumed by token, STARTTLS, features awaited", client.Modern{Token: true}, false},
		{"bound", "bound by token, direct TLS, sent ahead", client.Modern{Direct: r.Direct, Token: true, Pipeline: true}, true},
	} {
		if c.fresh {
			m.ID = ""
		}
		c.how.Dial = dialDelayed
		began := time.Now()
		s, resumed, err := r.Dialer.DialModern(ctx, c.how, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.title, err)
		}
		took := time.Since(began)
		s.Cut()
		if resumed == c.fresh {
			return nil, fmt.Errorf("%s: resumed %v", c.title, resumed)
		}
		metrics = append(metrics, Metric{c.key, "round trips, " + c.title, took.Seconds() / (2 * delay).Seconds()})
	}
	return metrics, nil
}

// dialDelayed connects over a network on which everything takes delay in each direction, the packets that set up TCP too.
func dialDelayed(ctx context.Context, address string) (net.Conn, error) {
	if err := wait(ctx, 2*delay); err != nil {
		return nil, err
	}
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	near, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	far, err := l.Accept()
	if err != nil {
		return nil, err
	}
	go passOn(server, far)
	go passOn(far, server)
	return near, nil
}

// passOn copies from one connection to another, each piece after delay, and closes both in the end.
func passOn(to, from net.Conn) {
	type piece struct {
		b   []byte
		due time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			pieces <- piece{b[:n], time.Now().Add(delay)}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.b); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	for range pieces {
	}
}
