package load

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"balcony/cmd/balcony-bench/client"
)

func readerAccounts(*Options) []string { return accounts("reader", 2) }

// pageSizes are what clients ask for: most of them 50, some 100. chosen.
var pageSizes = []int{50, 100}

// archiveTurn is how many messages one side sends before the other does.
const archiveTurn = 10

// CatchUp lets one client read its archive from the beginning to the end, as one does that has been away for long, again and again. The archive is
// filled the first time, which also tells what a message takes on disk.
func CatchUp(ctx context.Context, r *Run) ([]Metric, error) {
	names := readerAccounts(&r.Options)
	have, err := r.archived(ctx, names[0])
	if err != nil {
		return nil, err
	}
	var metrics []Metric
	if have == 0 {
		before, err := r.Disk(ctx)
		if err != nil {
			return nil, err
		}
		if err := r.fill(ctx, names); err != nil {
			return nil, fmt.Errorf("fill the archive: %w", err)
		}
		after, err := r.Disk(ctx)
		if err != nil {
			return nil, err
		}
		metrics = append(metrics, Metric{"disk", "disk, bytes per message kept for both", float64(after-before) / float64(r.Archived)})
	}
	if have, err = r.archived(ctx, names[0]); err == nil && have != r.Archived {
		err = fmt.Errorf("the archive has %d messages, not %d", have, r.Archived)
	}
	if err != nil {
		return nil, err
	}
	for _, size := range pageSizes {
		prefix := fmt.Sprintf("%d ", size)
		use, times, err := r.readArchive(ctx, names[0], size)
		if err != nil {
			return nil, err
		}
		m, err := use.perOp(prefix, fmt.Sprintf("page of %d", size), int64(len(times)))
		if err != nil {
			return nil, err
		}
		m[1].Title = fmt.Sprintf("pages of %d per second", size)
		slices.Sort(times)
		for _, l := range latencies(times)[:2] {
			m = append(m, Metric{prefix + l.Key, fmt.Sprintf("page of %d, %s", size, l.Title), l.Value})
		}
		metrics = append(metrics, m...)
	}
	return metrics, nil
}

// readArchive reads the whole archive again and again, until Duration is over, and returns how long each page took.
func (r *Run) readArchive(ctx context.Context, account string, size int) (use usage, times []time.Duration, err error) {
	all, err := r.login(ctx, []string{account}, false)
	if err != nil {
		return use, nil, err
	}
	defer all.close()
	defer context.AfterFunc(ctx, all.close)()
	var m mark
	for measured := false; ; {
		if !measured { // the first time is not measured
			measured = true
			if _, err := catchUp(all[0], size); err != nil {
				return use, nil, err
			}
			if m, err = r.begin(r.Duration); err != nil {
				return use, nil, err
			}
		}
		one, err := catchUp(all[0], size)
		if err != nil {
			return use, nil, err
		}
		if want := (r.Archived + size - 1) / size; len(one.times) < want || one.messages != r.Archived {
			return use, nil, fmt.Errorf("%d messages in %d pages, not %d in %d", one.messages, len(one.times), r.Archived, want)
		}
		times = append(times, one.times...)
		if time.Since(m.at) >= r.Duration || ctx.Err() != nil {
			break
		}
	}
	use, err = r.end(m)
	return use, times, err
}

// archived is how many messages the archive of an account has.
func (r *Run) archived(ctx context.Context, account string) (int, error) {
	all, err := r.login(ctx, []string{account}, false)
	if err != nil {
		return 0, err
	}
	defer all.close()
	defer context.AfterFunc(ctx, all.close)()
	one, err := catchUp(all[0], 100)
	return one.messages, err
}

// passed is what one pass through an archive has brought.
type passed struct {
	messages int
	times    []time.Duration // of the pages
}

// catchUp reads an archive from the beginning to the end: XEP-0313 §4, XEP-0059 §2.2.
func catchUp(s *client.Session, size int) (p passed, err error) {
	for after := ""; ; {
		begun := time.Now()
		set := fmt.Sprintf("<max>%d</max>", size)
		if after != "" {
			set += "<after>" + after + "</after>"
		}
		if err := s.WriteString("<iq type='set' id='page'><query xmlns='urn:xmpp:mam:2' queryid='q'><x xmlns='jabber:x:data' type='submit'>" +
			"<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field></x>" +
			"<set xmlns='http://jabber.org/protocol/rsm'>" + set + "</set></query></iq>"); err != nil {
			return p, err
		}
		n, complete, failed := 0, false, ""
		err := s.Until(func(st []byte) bool {
			switch {
			case bytes.HasPrefix(st, []byte("<message")) && bytes.Contains(st, []byte("urn:xmpp:mam:2")):
				n++
			case bytes.HasPrefix(st, []byte("<iq")) && string(client.Attr(st, "id")) == "page":
				if string(client.Attr(st, "type")) != "result" {
					failed = string(st)
				}
				complete = bytes.Contains(st, []byte("complete='true'")) || bytes.Contains(st, []byte(`complete="true"`))
				after = string(client.Between(st, "<last>", "</last>"))
				return true
			}
			return false
		})
		if err == nil && failed != "" {
			err = fmt.Errorf("unexpected answer %s", failed)
		}
		if err != nil {
			return p, err
		}
		p.messages += n
		p.times = append(p.times, time.Since(begun))
		if complete || n == 0 {
			return p, nil
		}
		if after == "" {
			return p, fmt.Errorf("a page of %d has no last", n)
		}
	}
}

// fill sends messages to and fro between two accounts, which both archive them.
func (r *Run) fill(ctx context.Context, names []string) error {
	all, err := r.login(ctx, names, true)
	if err != nil {
		return err
	}
	defer all.close()
	defer context.AfterFunc(ctx, all.close)()
	l := lanes(all)
	for sent, turn := 0, 0; sent < r.Archived; turn = 1 - turn {
		n := min(archiveTurn, r.Archived-sent)
		for range n {
			if err := all[turn].Write(l[turn].out.at(time.Since(epoch))); err != nil {
				return err
			}
		}
		got := 0
		if err := all[1-turn].Until(func(st []byte) bool {
			if bytes.HasPrefix(st, []byte("<message")) {
				got++
			}
			return got == n
		}); err != nil {
			return err
		}
		sent += n
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	// What a server writes after it has delivered is written when it has answered both.
	for _, s := range all {
		if err := s.Ping(r.Dialer.Domain); err != nil {
			return err
		}
		s.Logout()
	}
	return nil
}
