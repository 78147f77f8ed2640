package c2s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

func message(n int) *xmpp.Stanza {
	s := xmpp.New(xmpp.Message, "chat", jid.MustParse("juliet@localhost"), jid.JID{}, xmpp.El("", "body").Say(strings.Repeat("x", 100)))
	s.ID = fmt.Sprint(n)
	return s
}

func TestOutboxCoalesces(t *testing.T) {
	var writes []string
	o := newOutbox(1<<20, func(err error) { t.Error(err) })
	o.write = func(b []byte) error { writes = append(writes, string(b)); return nil }
	var b xmpp.Batch
	ctx := xmpp.WithBatch(context.Background(), &b)
	want := ""
	for n := range 10 {
		s := message(n)
		want += s.String()
		if !o.Enqueue(ctx, s) {
			t.Fatal("refused")
		}
	}
	if len(writes) != 0 {
		t.Fatalf("%d writes before the batch ended", len(writes))
	}
	b.End(ctx)
	if len(writes) != 1 || writes[0] != want {
		t.Fatalf("%d writes: %q, want %q", len(writes), writes, want)
	}
	if o.bytes() != 0 {
		t.Errorf("%d bytes are left", o.bytes())
	}
	o.Enqueue(context.Background(), message(11)) // without a batch it is written at once
	if len(writes) != 2 {
		t.Errorf("%d writes, want 2", len(writes))
	}
}

func TestOutboxBound(t *testing.T) {
	var failed []error
	o := newOutbox(1000, func(err error) { failed = append(failed, err) })
	o.stalled = true
	o.write = func([]byte) error { return nil }
	taken := 0
	for n := range 100 {
		if o.Enqueue(context.Background(), message(n)) {
			taken++
		}
	}
	if taken == 0 || taken > 10 || len(failed) != 1 || !errors.Is(failed[0], errOutboxFull) {
		t.Fatalf("%d taken, %v", taken, failed)
	}
	left := o.close()
	if len(left) != taken {
		t.Fatalf("%d are left of %d that were taken", len(left), taken)
	}
	for i, s := range left {
		if s.ID != fmt.Sprint(i) {
			t.Errorf("place %d has %s", i, s.ID)
		}
	}
	if o.Enqueue(context.Background(), message(0)) {
		t.Error("taken after close")
	}
}

// What waits for a client that resumes may be more than an outbox; the next stanza is taken all the same, and the bound holds for what is
// new.
func TestOutboxForced(t *testing.T) {
	var failed error
	o := newOutbox(1000, func(err error) { failed = err })
	o.stalled = true
	for n := range 50 {
		o.force(entry{stanza: message(n)})
	}
	if !o.Enqueue(context.Background(), message(50)) || failed != nil {
		t.Fatalf("the first new stanza: %v", failed)
	}
	for n := 51; failed == nil && n < 100; n++ {
		o.Enqueue(context.Background(), message(n))
	}
	if !errors.Is(failed, errOutboxFull) {
		t.Fatalf("the bound does not hold any more: %v", failed)
	}
}

func TestOutboxWriteError(t *testing.T) {
	gone := errors.New("gone")
	var failed error
	o := newOutbox(1000, func(err error) { failed = err })
	o.write = func([]byte) error { return gone }
	o.Enqueue(context.Background(), message(1))
	if failed != gone {
		t.Fatalf("%v, want %v", failed, gone)
	}
	if left := o.close(); len(left) != 1 {
		t.Fatalf("%d stanzas are left, want the one that was not written", len(left))
	}
}

// pair is two ends of a TCP connection.
func pair(t *testing.T) (*socket, *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSocket(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = c.Close(); s.drains.Wait() })
	return s, c
}

// Everything that many goroutines enqueue for a peer that reads slowly arrives whole and in each one's order, and no write ever blocks.
func TestSocketSlowReader(t *testing.T) {
	s, peer := pair(t)
	s.ready.Store(true)
	s.limit = 1 << 30
	o := newOutbox(1<<30, func(err error) { t.Error(err) })
	o.write = func(b []byte) error { _, err := s.Write(b); return err }
	s.stall, s.unstall, s.drained = o.stall, o.unstall, o.drained
	const writers, each = 4, 3000
	total := 0
	var all sync.WaitGroup
	for w := range writers {
		for n := range each {
			st := message(w*each + n)
			total += len(st.String())
		}
		all.Go(func() {
			for n := range each {
				o.Enqueue(context.Background(), message(w*each+n))
			}
		})
	}
	all.Wait() // nobody has read yet
	got := make([]byte, total)
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	last := make(map[int]int)
	count := 0
	for _, m := range strings.Split(string(got), "</message>") {
		var n int
		if i := strings.Index(m, "id='"); i >= 0 {
			if _, err := fmt.Sscanf(m[i:], "id='%d'", &n); err != nil {
				t.Fatal(err)
			}
			w := n / each
			if prev, ok := last[w]; ok && n != prev+1 {
				t.Fatalf("writer %d: %d after %d", w, n, prev)
			}
			last[w] = n
			count++
		}
	}
	if count != writers*each {
		t.Fatalf("%d messages of %d", count, writers*each)
	}
	s.drains.Wait()
	if o.bytes() != 0 {
		t.Errorf("%d bytes are counted after everything was read", o.bytes())
	}
}

// readable gives every byte, however it is cut, and tells of the end.
func TestSocketReadable(t *testing.T) {
	s, peer := pair(t)
	s.ready.Store(true)
	text := strings.Repeat("0123456789", 20_000)
	go func() {
		for i := 0; i < len(text); {
			n := min(1+i%7000, len(text)-i)
			_, _ = io.WriteString(peer, text[i:i+n])
			i += n
		}
		_ = peer.CloseWrite()
	}()
	var got strings.Builder
	buf := make([]byte, 1000)
	err := s.readable(false, func() bool {
		for {
			n, err := s.Read(buf)
			if err != nil {
				return true
			}
			got.Write(buf[:n])
		}
	})
	if err != io.EOF || got.String() != text {
		t.Fatalf("%d bytes of %d, %v", got.Len(), len(text), err)
	}
}
