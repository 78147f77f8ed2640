package storage

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
)

// search is what is known in memory of the full-text search: docs/decisions/0022-full-text-search.md.
type search struct {
	begin int64 // the last order that an earlier process has given; static after openSearch

	on      atomic.Bool  // some domain has it
	indexed atomic.Int64 // no message behind it is in archive_text
	spread  atomic.Int64 // at least the most by which an id of an entry there is greater than its message's
	stored  atomic.Int64 // what the database is known to have of it

	mu      sync.Mutex
	domains map[string]int64 // how far each is; guarded by mu
}

func (db *DB) openSearch(ctx context.Context) error {
	db.search.begin = db.writer.order
	return db.read(ctx, "openSearch", db.readSearch)
}

// raise makes n the least that a holds.
func raise(a *atomic.Int64, n int64) {
	for {
		old := a.Load()
		if old >= n || a.CompareAndSwap(old, n) {
			return
		}
	}
}

// readSearch reads the table into memory. What it has may be of a moment ago; indexed and spread only grow.
func (db *DB) readSearch(q queries) error {
	domains, spread, err := searchDomains(q)
	if err != nil {
		return err
	}
	s := &db.search
	for _, n := range domains {
		raise(&s.indexed, n)
	}
	raise(&s.spread, spread)
	s.stored.Store(spread)
	s.on.Store(len(domains) > 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.domains = domains
	return nil
}

func searchDomains(q queries) (domains map[string]int64, spread int64, err error) {
	domains = make(map[string]int64)
	err = q.rows("SELECT domain, indexed, spread FROM archive_search", nil, func(scan func(...any) error) error {
		var domain string
		var indexed, one int64
		err := scan(&domain, &indexed, &one)
		domains[domain], spread = indexed, max(spread, one)
		return err
	})
	return domains, spread, err
}

// SetSearch makes those domains have full-text search, and no others. When one has it no longer the words of all go, and those of the others are gathered
// anew.
func (db *DB) SetSearch(ctx context.Context, domains []string) error {
	if len(domains) == 0 && !db.search.on.Load() {
		return nil
	}
	err := db.write(ctx, func(q queries) error {
		now, _, err := searchDomains(q)
		if err != nil {
			return err
		}
		for d := range now {
			if slices.Contains(domains, d) {
				continue
			}
			for _, text := range []string{db.e.text.clear, "DELETE FROM archive_search"} {
				if _, err := q.exec(text); err != nil {
					return err
				}
			}
			clear(now)
			break
		}
		for _, d := range domains {
			if _, ok := now[d]; ok {
				continue
			}
			if _, err := q.exec("INSERT INTO archive_search (domain, indexed, spread) VALUES ($1, 0, 0)", d); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = db.read(ctx, "search", db.readSearch)
	}
	for _, d := range domains {
		more := true // of a small archive, or what the process before this one has not come to
		for i := 0; err == nil && more && i < indexAtOnce; i++ {
			more, err = db.IndexArchive(ctx, d, db.LastOrder(), indexPortion)
		}
	}
	if err != nil {
		return fmt.Errorf("full-text search: %w", err)
	}
	return nil
}

// Searched reports whether the archives of a domain can be searched.
func (db *DB) Searched(domain string) bool {
	s := &db.search
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.domains[domain]
	return ok && n >= s.begin
}

// indexUpTo returns when everything up to an order is found by searches of a domain; mam.ErrNoSearch when it has none.
func (db *DB) indexUpTo(ctx context.Context, domain string, upTo int64) error {
	if !db.Searched(domain) {
		return mam.ErrNoSearch
	}
	for more := true; more; {
		var err error
		if more, err = db.IndexArchive(ctx, domain, upTo, indexPortion); err != nil {
			return err
		}
	}
	return nil
}

const (
	indexPortion = 100 // chosen: messages that one transaction indexes; about ten milliseconds
	indexAtOnce  = 20  // chosen: portions that a start waits for; some tenths of a second
)

// IndexArchive makes up to limit messages with orders up to upTo found by searches of a domain.
func (db *DB) IndexArchive(ctx context.Context, domain string, upTo int64, limit int) (more bool, err error) {
	s := &db.search
	s.mu.Lock()
	from, ok := s.domains[domain]
	s.mu.Unlock()
	if !ok || from >= upTo {
		return false, nil
	}
	err = db.write(ctx, func(q queries) error {
		more, err = db.indexMessages(q, domain, upTo, limit)
		return err
	})
	if err == nil {
		err = db.read(ctx, "search", db.readSearch)
	}
	if err != nil {
		return false, fmt.Errorf("index messages: %w", err)
	}
	return more, nil
}

// indexMessages looks at the next messages for a domain, and for those that are as far as it is. Orders grow in the order of writes, so none up to upTo is
// written after; what is imported later sees to itself.
func (db *DB) indexMessages(q queries, domain string, upTo int64, limit int) (more bool, err error) {
	domains, _, err := searchDomains(q)
	from, ok := domains[domain]
	if err != nil || !ok {
		return false, err
	}
	to := upTo
	for _, n := range domains { // where others have been, and are caught up with
		if n > from {
			to = min(to, n)
		}
	}
	if from >= to {
		return false, nil
	}
	type message struct {
		id  int64
		xml []byte
	}
	var list []message
	if err := q.rows("SELECT id, stanza FROM message WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3", []any{from, to, limit}, func(scan func(...any) error) error {
		var m message
		err := scan(&m.id, &m.xml)
		list = append(list, m)
		return err
	}); err != nil {
		return false, err
	}
	if len(list) == limit {
		to = list[limit-1].id
	}
	raise(&db.search.indexed, to)
	for _, m := range list {
		if err := db.indexMessage(q, m.id, m.xml); err != nil {
			return false, err
		}
	}
	if _, err := q.exec("UPDATE archive_search SET indexed = $1 WHERE indexed = $2", to, from); err != nil {
		return false, err
	}
	return to < upTo, nil
}

// indexAgain makes the words of a message those of the accounts that have it now, if it was looked at before.
func (db *DB) indexAgain(q queries, row int64) error {
	if !db.search.on.Load() || row > db.search.indexed.Load() {
		return nil
	}
	var xml []byte
	if _, err := q.row("SELECT stanza FROM message WHERE id = $1", []any{row}, &xml); err != nil { // nil when it is gone
		return err
	}
	return db.indexMessage(q, row, xml)
}

// indexMessage writes the words of a message. What stands in the place of another (its row is younger than the entry) has none.
func (db *DB) indexMessage(q queries, row int64, xml []byte) error {
	if _, err := q.exec("DELETE FROM archive_text WHERE rowid = $1", row); err != nil || xml == nil {
		return err
	}
	var spread int64
	var words []string
	var b strings.Builder
	if err := q.rows(`SELECT e.account_id, e.id, e.peer FROM archive_entry e JOIN account a ON a.id = e.account_id JOIN archive_search s ON s.domain = a.domain
		WHERE e.message_id = $1 AND e.id >= $1 AND e.flags <> 2`, []any{row}, func(scan func(...any) error) error {
		var account, id, peer int64
		if err := scan(&account, &id, &peer); err != nil {
			return err
		}
		if words == nil {
			s, err := stream.Parse(xml, storedLimits)
			if err != nil {
				db.log.Error("stored message cannot be read", "message", row, "error", err)
				s = &xmpp.Stanza{}
			}
			words = append(mam.Words(s), "")
		}
		if len(words) == 1 {
			return nil
		}
		spread = max(spread, id-row)
		for _, w := range words[:len(words)-1] {
			b.WriteString(ownWord(account, w))
			b.WriteByte(' ')
		}
		b.WriteString(ownPeer(account, peer))
		b.WriteByte(' ')
		return nil
	}); err != nil || b.Len() == 0 {
		return err
	}
	if spread > db.search.stored.Load() {
		spread *= 2                      // not a write for every message
		raise(&db.search.spread, spread) // too much is harmless, also when the transaction fails
		if _, err := q.exec("UPDATE archive_search SET spread = $1 WHERE spread < $1", spread); err != nil {
			return err
		}
	}
	_, err := q.exec(db.e.text.insert, row, strings.TrimSuffix(b.String(), " "))
	return err
}

// ownWord and ownPeer are words of archive_text. mam.Words have no underscore.
func ownWord(account int64, word string) string {
	return strconv.FormatInt(account, 36) + "_" + word
}

func ownPeer(account, peer int64) string {
	return ownWord(account, "_"+strconv.FormatUint(uint64(peer), 36))
}

// expression asks for what has all the terms.
func (t *textIndex) expression(account int64, terms []mam.Term, b bounds) string {
	var all []string
	for _, one := range terms {
		format := t.word
		if one.Begins {
			format = t.begins
		}
		all = append(all, fmt.Sprintf(format, ownWord(account, one.Word)))
	}
	if b.exact > 0 {
		all = append(all, fmt.Sprintf(t.word, ownPeer(account, b.peer)))
	}
	return strings.Join(all, t.and)
}

// searchQueries are the texts of a search forwards, backwards, and for its count.
type searchQueries struct{ page, back, count string }

func newSearchQueries(e *engine) searchQueries {
	from := " FROM archive_text t CROSS JOIN archive_entry e" + e.useMessage + " CROSS JOIN message m WHERE " + e.text.match +
		` AND t.rowid >= $2 AND t.rowid <= $3 AND e.message_id = t.rowid AND e.account_id = $4 AND e.id > $5 AND e.id < $6 AND e.id >= t.rowid AND e.flags <> 2
		AND m.id = t.rowid AND m.stamp >= $7 AND m.stamp <= $8 AND (e.resource = $9 OR $9 = 0)`
	return searchQueries{
		page:  "SELECT t.rowid, e.id" + from + " ORDER BY t.rowid LIMIT $10",
		back:  "SELECT t.rowid, e.id" + from + " ORDER BY t.rowid DESC LIMIT $10",
		count: "SELECT count(*) FROM (SELECT 1" + from + " LIMIT $10) c",
	}
}

// found is an entry of an archive and the message that it has.
type found struct{ row, order int64 }

// searchPage reads a page of what has the words of a query.
func (db *DB) searchPage(q queries, owner jid.JID, query *mam.Query, b bounds, page *mam.Page) error {
	var account int64
	ok, err := q.row("SELECT id FROM account WHERE domain = $1 AND localpart = $2", []any{owner.Domainpart(), owner.Localpart()}, &account)
	if err != nil || !ok {
		page.Complete = true
		return err
	}
	expr := db.e.text.expression(account, query.Words, b)
	if query.IDs != nil {
		return db.searchIDs(q, owner, account, expr, query, b, page)
	}
	if query.Count > 0 {
		if _, err := q.row(db.searches.count, append(db.searchArgs(account, expr, b), query.Count), &page.Count); err != nil {
			return err
		}
	}
	if query.Max == 0 {
		page.Complete = page.Count == 0
		return nil
	}
	list, err := db.searchSome(q, account, expr, b, query.Backward, query.Max+1)
	if err != nil {
		return err
	}
	return db.searchRead(q, owner, account, list, query, page)
}

func (db *DB) searchArgs(account int64, expr string, b bounds) []any {
	low := int64(0)
	if spread := db.search.spread.Load(); b.after > spread {
		low = b.after - spread
	}
	return []any{expr, low, b.before, account, b.after, b.before, b.start, b.end, b.full}
}

// searchSome returns the first entries that a search finds, or the last ones with the last of them first: at least n if there are so many. The database gives
// them in the order of their messages, which their own may differ from by the spread: an entry is never older than its message, and younger by that at most.
func (db *DB) searchSome(q queries, account int64, expr string, b bounds, backward bool, n int) (list []found, err error) {
	limit := n + searchMore
	args := append(db.searchArgs(account, expr, b), limit)
	text, edge := db.searches.page, 1
	compare := func(a, b found) int { return int(min(max(a.order-b.order, -1), 1)) }
	if backward {
		text, edge = db.searches.back, 2
		forward := compare
		compare = func(a, b found) int { return forward(b, a) }
	}
	spread := db.search.spread.Load()
	for {
		got, before := 0, len(list)
		var last found
		if err := q.rows(text, args, func(scan func(...any) error) error {
			err := scan(&last.row, &last.order)
			list, got = append(list, last), got+1
			return err
		}); err != nil {
			return nil, err
		}
		slices.SortFunc(list, compare)
		list = slices.Compact(list) // those of the message where the last portion ended
		if got < limit {
			return list, nil
		}
		settled := 0 // how many of them nothing comes before
		for _, f := range list {
			if !backward && f.order >= last.row || backward && f.order <= last.row+spread {
				break
			}
			settled++
		}
		if settled >= n {
			return list[:settled], nil
		}
		args[edge] = last.row
		if len(list) == before { // an account may have imported a message many times
			limit *= 2
			args[9] = limit
		}
	}
}

// searchMore is how many entries more than are wanted a search reads at once. chosen: few are so close that their order is not that of their messages.
const searchMore = 20

// searchRead puts the first messages of a list into a page.
func (db *DB) searchRead(q queries, owner jid.JID, account int64, list []found, query *mam.Query, page *mam.Page) error {
	page.Messages = make([]mam.Message, 0, min(query.Max, len(list)))
	size := 0
	who := db.messageRow(owner)
	page.Complete = true
	for _, f := range list {
		if len(page.Messages) == query.Max || query.Bytes > 0 && size >= query.Bytes {
			page.Complete = false
			break
		}
		err := q.rows("SELECT e.id, m.stamp, m.stanza, e.flags FROM archive_entry e JOIN message m ON m.id = e.message_id WHERE e.account_id = $1 AND e.id = $2 AND e.message_id = $3",
			[]any{account, f.order, f.row}, func(scan func(...any) error) error { // none: deleted, or retracted, meanwhile
				m, err := db.scanMessage(who, scan)
				page.Messages, size = append(page.Messages, m), size+len(m.XML)
				return err
			})
		if err != nil {
			return err
		}
	}
	if query.Backward {
		slices.Reverse(page.Messages)
	}
	return nil
}

// searchIDs finds those of the messages with the ids of a query that meet its other conditions.
func (db *DB) searchIDs(q queries, owner jid.JID, account int64, expr string, query *mam.Query, b bounds, page *mam.Page) error {
	var list []found
	for _, id := range query.IDs {
		order, err := db.archived(q, owner, id)
		if err != nil {
			return err
		}
		one := b
		one.after, one.before = max(b.after, order-1), min(b.before, order+1)
		some, err := db.searchSome(q, account, expr, one, false, 1)
		if err != nil {
			return err
		}
		list = append(list, some...)
	}
	slices.SortFunc(list, func(a, b found) int { return int(min(max(a.order-b.order, -1), 1)) })
	list = slices.Compact(list)
	page.Count = min(len(list), query.Count)
	most := *query
	most.Bytes = 0
	if query.Backward {
		slices.Reverse(list)
	}
	if err := db.searchRead(q, owner, account, list, &most, page); err != nil {
		return err
	}
	if len(list) == 0 {
		page.Messages = nil
	}
	return nil
}
