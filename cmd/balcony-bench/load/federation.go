package load

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"balcony/cmd/balcony-bench/client"
)

// peerDomain is the domain of the other server, which the driver plays itself.
const peerDomain = "127.0.0.7"

func federationAccounts(o *Options) []string { return accounts("pair", o.Pairs) }

// Federation relays messages between clients of the server and a server of another domain: first those that the clients send, then those that come
// for them, one in flight for each client, as fast as the server relays them. The end of each is seen by the driver, which sends the next one, so
// that nothing but the one direction is measured.
func Federation(ctx context.Context, r *Run) ([]Metric, error) {
	names := federationAccounts(&r.Options)
	all, err := r.login(ctx, names, true)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]int, len(all))
	outgoing, incoming := make([]*message, len(all)), make([]*message, len(all))
	for i, name := range names {
		byName[name] = i
		outgoing[i] = newMessage(name + "@" + peerDomain)
		incoming[i] = newMessageIn(fmt.Sprintf(" from='%s@%s/bench'", name, peerDomain), name+"@"+r.Dialer.Domain)
	}
	f := &federation{Run: r}
	f.stopped.Store(true)
	peer, err := client.NewPeer(peerDomain, r.Certificate, func(stanza []byte) {
		local, _, _ := bytes.Cut(client.Attr(stanza, "to"), []byte("@"))
		i, known := byName[string(local)]
		if due, ok := stampOf(stanza, "<body>"); known && ok && f.relayed(due) {
			if err := all[i].Write(outgoing[i].at(time.Since(epoch))); err != nil {
				f.stopped.Store(true)
			}
		}
	})
	if err != nil {
		all.close()
		return nil, err
	}
	defer peer.Close()
	if err := peer.Connect(ctx, r.S2S, r.Dialer.Domain); err != nil {
		all.close()
		return nil, fmt.Errorf("stream to the server: %w", err)
	}
	in := read(ctx, all, func(i int, s *client.Session) error {
		return messages(s, func(due time.Duration) error {
			if f.relayed(due) {
				peer.Write(incoming[i].at(time.Since(epoch)))
			}
			return nil
		})
	})
	metrics, err := f.window(in.ctx, "out ", "outgoing message", func() error {
		for i, s := range all {
			// A message of its own: the peer's reader may already use the other.
			if err := s.Write(newMessage(names[i] + "@" + peerDomain).at(time.Since(epoch))); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		var more []Metric
		more, err = f.window(in.ctx, "in ", "incoming message", func() error {
			for i := range all {
				peer.Write(incoming[i].at(time.Since(epoch)))
			}
			return nil
		})
		metrics = append(metrics, more...)
	}
	if lost := peer.Err(); err != nil && lost != nil {
		err = fmt.Errorf("%w; the stream with the server: %w", err, lost)
	}
	if stopErr := in.stop(); err == nil {
		err = stopErr
	}
	return metrics, err
}

// federation counts what is relayed.
type federation struct {
	*Run
	stopped   atomic.Bool // nothing more is sent
	measuring atomic.Bool
	count     atomic.Int64
	flying    atomic.Int64
	latency   chan time.Duration
}

// relayed notes the end of a message that was due then, and reports whether the next one is to be sent.
func (f *federation) relayed(due time.Duration) bool {
	f.count.Add(1)
	if f.measuring.Load() {
		select {
		case f.latency <- time.Since(epoch) - due:
		default: // enough of them
		}
	}
	if f.stopped.Load() {
		f.flying.Add(-1)
		return false
	}
	return true
}

// window measures one direction, whose messages start sends off, one for each client.
func (f *federation) window(ctx context.Context, prefix, op string, start func() error) ([]Metric, error) {
	f.stopped.Store(false)
	f.flying.Store(int64(f.Pairs))
	f.latency = make(chan time.Duration, 1<<20) // chosen: more than any server relays in a window
	if err := start(); err != nil {
		return nil, err
	}
	if err := wait(ctx, f.Warmup); err != nil {
		return nil, err
	}
	m, err := f.begin(f.Duration)
	if err != nil {
		return nil, err
	}
	n := f.count.Load()
	f.measuring.Store(true)
	if err := wait(ctx, f.Duration); err != nil {
		return nil, err
	}
	f.measuring.Store(false)
	n = f.count.Load() - n
	use, err := f.end(m)
	if err != nil {
		return nil, err
	}
	f.stopped.Store(true)
	for end := time.Now().Add(10 * time.Second); f.flying.Load() > 0; {
		if time.Now().After(end) {
			return nil, fmt.Errorf("%d messages were not delivered", f.flying.Load())
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
	metrics, err := use.perOp(prefix, op, n)
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	for len(f.latency) > 0 {
		all = append(all, <-f.latency)
	}
	slices.Sort(all)
	for _, l := range latencies(all) {
		metrics = append(metrics, Metric{prefix + l.Key, l.Title, l.Value})
	}
	return metrics, nil
}
