package storage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
)

var _ mam.Store = (*DB)(nil)

// Flags of an archive_entry.
const (
	flagArchived = 1
	flagSpool    = 2
	flagSent     = 4
)

// archiveIDs makes the ids that clients see of the order of a message, and back: a permutation that only this database's secret opens
// (XEP-0313 §3: "unpredictable"), so that they need no index. The owner is part of it: an id of somebody else's archive opens nothing.
type archiveIDs struct {
	block cipher.Block
	key   []byte // of digests
}

func newArchiveIDs(secret []byte) (archiveIDs, error) {
	block, err := aes.NewCipher(secret[:16])
	return archiveIDs{block, secret[16:]}, err
}

// digest is a keyed number for a JID: nobody can choose two with the same.
func (a *archiveIDs) digest(parts ...string) int64 {
	b := append(make([]byte, 0, 128), a.key...)
	for _, p := range parts {
		b = append(append(b, p...), 0) // not part of a JID
	}
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// peer is the digests of a JID: bare, and with its resource, 0 without one.
func (a *archiveIDs) peer(j jid.JID) (bare, full int64) {
	bare = a.digest(j.Localpart(), j.Domainpart())
	if r := j.Resourcepart(); r != "" {
		full = a.digest(j.Localpart(), j.Domainpart(), r)
	}
	return bare, full
}

// tagBits is how much of an id's digest a tag has. chosen: one of 30,000 other messages is read for nothing, and most tags take two bytes.
const tagBits = 15

// tagged is the part of a tag for an id, 0 for none.
func (a *archiveIDs) tagged(id string) int64 {
	if id == "" {
		return 0
	}
	return max(1, a.digest("id", id)&(1<<tagBits-1))
}

// tag is that of a message: of its id and of the id of the message that it corrects. It is never 0, which means that it is not known.
func (a *archiveIDs) tag(s *xmpp.Stanza) int64 {
	tag := a.tagged(s.ID)
	if fix, ok := s.Child(nsCorrect, "replace"); ok {
		tag |= a.tagged(fix.Attr("id")) << tagBits
	}
	if tag == 0 {
		return 1 << (2 * tagBits)
	}
	return tag
}

const nsCorrect = "urn:xmpp:message-correct:0" // XEP-0308

func (a *archiveIDs) id(owner jid.JID, order int64) string {
	who, _ := a.peer(owner.Bare())
	return a.idOf(who, order)
}

// idOf is id for the digest of an owner's bare JID.
func (a *archiveIDs) idOf(owner, order int64) string {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[:], uint64(owner))
	binary.BigEndian.PutUint64(b[8:], uint64(order))
	a.block.Encrypt(b[:], b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// order is the inverse of id; false for what was never an id of that owner.
func (a *archiveIDs) order(owner jid.JID, id string) (int64, bool) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) != aes.BlockSize {
		return 0, false
	}
	a.block.Decrypt(b, b)
	order := int64(binary.BigEndian.Uint64(b[8:]))
	return order, a.id(owner, order) == id // also against other spellings of the same bytes
}

// openArchive reads what the archive needs in memory.
func (db *DB) openArchive(ctx context.Context) error {
	secret, err := db.Secret(ctx, "archive", 32)
	if err != nil {
		return err
	}
	if db.ids, err = newArchiveIDs(secret); err != nil {
		return err
	}
	db.queries = newArchiveQueries(db.e.usePeer, db.e.useResource)
	db.searches = newSearchQueries(db.e)
	db.tagged = taggedQuery(db.e.usePeer)
	var last, first, entry, outgoing, skew int64
	err = db.read(ctx, "openArchive", func(q queries) error {
		_, err := q.row("SELECT coalesce(max(id), 0) FROM message", nil, &last)
		if err == nil {
			_, err = q.row("SELECT coalesce(min(id), 0) FROM (SELECT id FROM message ORDER BY id DESC LIMIT 1000) m", nil, &first)
		}
		if err == nil { // the second owner's entry of a message is a little younger than the message
			_, err = q.row("SELECT coalesce(max(id), 0) FROM archive_entry WHERE message_id >= $1", []any{first}, &entry)
		}
		if err == nil {
			_, err = q.row("SELECT coalesce(max(id), 0) FROM outgoing", nil, &outgoing)
		}
		if err == nil {
			_, err = q.row("SELECT skew FROM archive_clock", nil, &skew)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	last = max(last, entry, outgoing)
	db.writer.order = last
	db.skew.Store(skew)
	db.storedSkew.Store(skew)
	return db.openSearch(ctx)
}

// AppendMessage keeps a message for an account. The order is given, and the write queued, in one step: what is committed later is behind
// what was committed before, so a client that has read up to a message misses none before it. It does not block: when the queue is full the
// commit ends at once with ErrOverloaded.
func (db *DB) AppendMessage(_ context.Context, it mam.Item) mam.Kept {
	op := &write{size: writeCost, at: it.Stamp.UnixMicro()}
	if it.Stanza.Row == 0 {
		op.size += it.Stanza.Size()
	}
	op.run = func(q queries) error {
		if err := db.appendMessage(q, &it, op.order); err != nil {
			return fmt.Errorf("message for %s: %w", it.Owner, err)
		}
		return nil
	}
	if err := db.writer.enqueue(op, queueFull); err != nil {
		op.Complete(fmt.Errorf("message for %s: %w", it.Owner, err))
		return mam.Kept{Commit: &op.Commit}
	}
	if it.Spool {
		db.spoolChanges(it.Owner)
	}
	if ahead := op.order - op.at; ahead > db.storedSkew.Load() {
		op.Then(func(err error) {
			if err == nil && db.storedSkew.Load() < 2*ahead {
				db.storedSkew.Store(2 * ahead) // as noteSkew wrote it
			}
		})
	}
	return mam.Kept{ID: db.ids.id(it.Owner, op.order), Order: op.order, Commit: &op.Commit}
}

// ArchiveID is the id of a message by its order.
func (db *DB) ArchiveID(owner jid.JID, order int64) string { return db.ids.id(owner, order) }

func (db *DB) appendMessage(q queries, it *mam.Item, order int64) error {
	flags := flagArchived*bit(it.Archived) + flagSpool*bit(it.Spool) + flagSent*bit(it.Sent)
	peer, resource := db.ids.peer(it.Peer)
	tag := db.ids.tag(it.Stanza)
	row := it.Stanza.Row
	if row != 0 {
		n, err := q.exec(`INSERT INTO archive_entry (account_id, id, message_id, peer, resource, flags, tag)
			SELECT a.id, $3, m.id, $5, $6, $7, $8 FROM account a, message m WHERE a.domain = $1 AND a.localpart = $2 AND m.id = $4`,
			it.Owner.Domainpart(), it.Owner.Localpart(), order, row, peer, resource, flags, tag)
		if err == nil && n > 0 {
			err = db.indexAgain(q, row)
		}
		if err != nil || n > 0 {
			return err
		}
		// The first owner's write has failed, or it was deleted since.
	}
	n, err := q.exec(`INSERT INTO archive_entry (account_id, id, message_id, peer, resource, flags, tag)
		SELECT id, $3, $3, $4, $5, $6, $7 FROM account WHERE domain = $1 AND localpart = $2`,
		it.Owner.Domainpart(), it.Owner.Localpart(), order, peer, resource, flags, tag)
	if err == nil && n == 0 {
		err = refuse(auth.ErrNoAccount)
	}
	if err != nil {
		return err
	}
	if err := insertMessage(q, order, it.Stamp, it.Stanza); err != nil {
		return err
	}
	return db.noteSkew(q, order-it.Stamp.UnixMicro())
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func insertMessage(q queries, id int64, stamp time.Time, s *xmpp.Stanza) error {
	_, err := q.exec("INSERT INTO message (id, stamp, stanza) VALUES ($1, $2, $3)", id, stamp.UnixMicro(), s.AppendTo(make([]byte, 0, s.Size())))
	return err
}

// noteSkew keeps the bound of how much orders are ahead of stamps: queries for a time need not look beyond it.
func (db *DB) noteSkew(q queries, skew int64) error {
	if skew <= db.storedSkew.Load() {
		return nil
	}
	skew *= 2 // a clock that went back does not cost each message a write
	if db.skew.Load() < skew {
		db.skew.Store(skew) // too much is harmless, also when the transaction fails
	}
	_, err := q.exec("UPDATE archive_clock SET skew = $1 WHERE skew < $1", skew)
	return err
}

// What queries of an archive have in common. Every text is made of constants: what differs are conditions, not values.
const (
	archiveOwner = "e.account_id = (SELECT id FROM account WHERE domain = $1 AND localpart = $2) AND e.flags <> 2"
	archiveWhere = " JOIN message m ON m.id = e.message_id WHERE " + archiveOwner +
		" AND e.id > $3 AND e.id < $4 AND m.stamp >= $5 AND m.stamp <= $6"
	archivedText = "SELECT 1 FROM archive_entry e WHERE " + archiveOwner + " AND e.id = $3"

	archiveBare = " AND e.peer = $7"
	archiveFull = " AND e.resource = $7 AND e.resource <> 0" // as the index has it; the digest is of the bare JID too
)

// archiveQuery is the text for a page from the start, for one from the end, for the count, and for that when no time is asked for, which the
// entries alone tell. The counts are in the order of the archive, so that PostgreSQL reads an index as far as the bound and does not join all messages.
type archiveQuery struct{ page, back, count, all string }

// archiveQueries are the texts by how exact the other end is: nobody, a bare JID, a full JID.
type archiveQueries [3]archiveQuery

// taggedQuery is the text for those of the newest messages with somebody that have a tag, or one that is not known.
func taggedQuery(usePeer string) string {
	return "SELECT id FROM (SELECT e.id, e.tag FROM archive_entry e" + usePeer + ` WHERE e.account_id = (SELECT id FROM account WHERE domain = $1 AND localpart = $2)
		AND e.peer = $3 AND e.flags <> 2 ORDER BY e.id DESC LIMIT $4) c WHERE tag = 0 OR tag & 32767 = $5 OR tag & 1073709056 = $6`
}

// newArchiveQueries makes the texts; usePeer and useResource are what makes the database use the index of peers, or of their resources, where it would not.
func newArchiveQueries(usePeer, useResource string) (all archiveQueries) {
	for i, c := range []struct{ hint, where, limit, entries string }{
		{"", archiveWhere, "$7", " ORDER BY e.id LIMIT $5"},
		{usePeer, archiveWhere + archiveBare, "$8", " AND e.peer = $5 ORDER BY e.id LIMIT $6"},
		{useResource, archiveWhere + archiveFull, "$8", " AND e.resource = $5 AND e.resource <> 0 ORDER BY e.id LIMIT $6"},
	} {
		from := " FROM archive_entry e" + c.hint + c.where
		page := "SELECT e.id, m.stamp, m.stanza, e.flags" + from + " ORDER BY e.id"
		all[i] = archiveQuery{page + " LIMIT " + c.limit, page + " DESC LIMIT " + c.limit, "SELECT count(*) FROM (SELECT 1" + from + " ORDER BY e.id LIMIT " + c.limit + ") c",
			"SELECT count(*) FROM (SELECT 1 FROM archive_entry e" + c.hint + " WHERE " + archiveOwner + " AND e.id > $3 AND e.id < $4" + c.entries + ") c"}
	}
	return all
}

// bounds are the conditions of a query as numbers. Orders are exclusive, stamps inclusive, in microseconds.
type bounds struct {
	after, before int64
	start, end    int64
	peer, full    int64
	exact         int // 0 for everybody, 1 for a bare JID, 2 for a full one
}

// args are the values of a text, without its limit.
func (b *bounds) args(owner jid.JID) []any {
	all := make([]any, 0, 8)
	all = append(all, owner.Domainpart(), owner.Localpart(), b.after, b.before, b.start, b.end)
	switch b.exact {
	case 1:
		all = append(all, b.peer)
	case 2:
		all = append(all, b.full)
	}
	return all
}

// QueryArchive reads a page of an archive; mam.ErrNoMessage when an id of the query is not in it.
func (db *DB) QueryArchive(ctx context.Context, owner jid.JID, query mam.Query) (page mam.Page, err error) {
	err = db.writer.settle(ctx)
	pool := &db.pager
	if query.Words != nil {
		pool = &db.searcher
		if err == nil {
			err = db.indexUpTo(ctx, owner.Domainpart(), db.LastOrder())
		}
	}
	if err == nil {
		err = db.readWith(ctx, "QueryArchive", pool, func(q queries) error {
			page = mam.Page{}
			b, err := db.bounds(q, owner, &query)
			switch {
			case err != nil:
				return err
			case query.Words != nil:
				return db.searchPage(q, owner, &query, b, &page)
			case query.IDs != nil:
				return db.archiveByID(q, owner, &query, b, &page)
			}
			return db.archivePage(q, owner, &query, b, &page)
		})
	}
	if err != nil {
		return mam.Page{}, fmt.Errorf("archive of %s: %w", owner, err)
	}
	return page, nil
}

func (db *DB) bounds(q queries, owner jid.JID, query *mam.Query) (bounds, error) {
	b := bounds{after: 0, before: math.MaxInt64, start: math.MinInt64, end: math.MaxInt64}
	if !query.Start.IsZero() {
		b.start = query.Start.UnixMicro()
		if query.Start.Nanosecond()%1000 != 0 {
			b.start++ // stamps are whole microseconds
		}
		b.after = max(b.after, b.start-1) // an order is never less than the stamp
	}
	if !query.End.IsZero() {
		b.end = query.End.UnixMicro()
		if skew := db.skew.Load(); b.end < math.MaxInt64-skew-1 {
			b.before = min(b.before, b.end+skew+1)
		}
	}
	if !query.With.Equal(jid.JID{}) {
		b.exact = 1
		if b.peer, b.full = db.ids.peer(query.With); b.full != 0 {
			b.exact = 2
		}
	}
	for _, id := range query.After {
		order, err := db.archived(q, owner, id)
		if err != nil {
			return b, err
		}
		b.after = max(b.after, order)
	}
	for _, id := range query.Before {
		order, err := db.archived(q, owner, id)
		if err != nil {
			return b, err
		}
		b.before = min(b.before, order)
	}
	return b, nil
}

// archived is the order of an id that is in the archive.
func (db *DB) archived(q queries, owner jid.JID, id string) (int64, error) {
	order, ok := db.ids.order(owner, id)
	if !ok {
		return 0, refuse(mam.ErrNoMessage)
	}
	var one int
	found, err := q.row(archivedText, []any{owner.Domainpart(), owner.Localpart(), order}, &one)
	if err == nil && !found {
		err = refuse(mam.ErrNoMessage)
	}
	return order, err
}

func (db *DB) archivePage(q queries, owner jid.JID, query *mam.Query, b bounds, page *mam.Page) error {
	text := &db.queries[b.exact]
	args := b.args(owner)
	if query.Count > 0 {
		var err error
		if page.Count, err = db.countArchive(q, owner, text, b, query.Count); err != nil {
			return err
		}
	}
	if query.Max == 0 {
		page.Complete = page.Count == 0
		return nil
	}
	one := text.page
	if query.Backward {
		one = text.back
	}
	page.Messages = make([]mam.Message, 0, min(query.Max, 64))
	more, size := false, 0
	row := db.messageRow(owner)
	err := q.rows(one, append(args[:len(args):len(args)], query.Max+1), func(scan func(...any) error) error {
		if more || len(page.Messages) == query.Max || query.Bytes > 0 && size >= query.Bytes {
			more = true
			return nil
		}
		m, err := db.scanMessage(row, scan)
		page.Messages, size = append(page.Messages, m), size+len(m.XML)
		return err
	})
	page.Complete = !more
	if query.Backward {
		slices.Reverse(page.Messages)
	}
	return err
}

// countArchive counts up to limit messages. An order is as great as the stamp, or up to skew greater: only near the ends of a time must the messages be
// read for their stamps.
func (db *DB) countArchive(q queries, owner jid.JID, text *archiveQuery, b bounds, limit int) (n int, err error) {
	sure := b // what is between these orders is within the time
	if b.start != math.MinInt64 {
		sure.after = max(b.after, b.start+db.skew.Load()-1)
	}
	if b.end != math.MaxInt64 {
		sure.before = min(b.before, b.end+1)
	}
	if sure.after >= sure.before-1 {
		sure.after, sure.before = b.after, b.after+1 // none
	}
	first, last := b, b
	first.before, last.after = sure.after+1, sure.before-1
	for _, part := range []struct {
		b    bounds
		sure bool
	}{{first, false}, {sure, true}, {last, false}} {
		if n >= limit || part.b.after >= part.b.before-1 {
			continue
		}
		one, args := text.count, part.b.args(owner)
		if part.sure {
			one, args = text.all, append(args[:4:4], args[6:]...)
		}
		var more int
		if _, err := q.row(one, append(args, limit-n), &more); err != nil {
			return 0, err
		}
		n += more
	}
	return n, nil
}

// messageRow is what the rows of a page are scanned into, one after the other.
type messageRow struct {
	owner        int64 // the digest of the owner's JID
	order, stamp int64
	xml          []byte
	flags        int
	dest         []any
}

func (db *DB) messageRow(owner jid.JID) *messageRow {
	r := new(messageRow)
	r.owner, _ = db.ids.peer(owner.Bare())
	r.dest = []any{&r.order, &r.stamp, &r.xml, &r.flags}
	return r
}

func (db *DB) scanMessage(r *messageRow, scan func(...any) error) (m mam.Message, err error) {
	if err := scan(r.dest...); err != nil {
		return m, err
	}
	return mam.Message{ID: db.ids.idOf(r.owner, r.order), Order: r.order, Stamp: time.UnixMicro(r.stamp).UTC(), XML: r.xml,
		Sent: r.flags&flagSent != 0, Spool: r.flags&flagSpool != 0}, nil
}

// archiveByID reads the messages with the ids of a query that meet its other conditions.
func (db *DB) archiveByID(q queries, owner jid.JID, query *mam.Query, b bounds, page *mam.Page) error {
	var found []mam.Message
	row := db.messageRow(owner)
	for _, id := range query.IDs {
		order, err := db.archived(q, owner, id)
		if err != nil {
			return err
		}
		text := &db.queries[b.exact]
		one := b
		one.after, one.before = max(b.after, order-1), min(b.before, order+1)
		if err := q.rows(text.page, append(one.args(owner), 1), func(scan func(...any) error) error {
			m, err := db.scanMessage(row, scan)
			found = append(found, m)
			return err
		}); err != nil {
			return err
		}
	}
	slices.SortFunc(found, func(a, b mam.Message) int { return cmp.Compare(a.Order, b.Order) })
	found = slices.CompactFunc(found, func(a, b mam.Message) bool { return a.Order == b.Order })
	page.Count = min(len(found), query.Count)
	page.Complete = len(found) <= query.Max
	if !page.Complete {
		if query.Backward {
			found = found[len(found)-query.Max:]
		} else {
			found = found[:query.Max]
		}
	}
	page.Messages = found
	return nil
}

// RewriteMessages shows visit the message with that id and its corrections among the limit newest messages that owner has with peer (bare), the newest first, and
// then those that wait and are not in the archive, until visit says that it has seen enough. Others may be shown too. What visit returns instead of a message takes its place in the
// archive of this owner alone, with its id and stamp, and does not wait in the spool; outside the archive there is nothing instead.
func (db *DB) RewriteMessages(ctx context.Context, owner, peer jid.JID, limit int, id string, visit mam.Visit) error {
	more := true
	shown := func(m mam.Message) (instead *xmpp.Stanza, again bool) {
		s, err := stream.Parse(m.XML, storedLimits)
		if err != nil {
			db.log.Error("stored message cannot be read", "account", owner.String(), "order", m.Order, "error", err)
			return nil, true
		}
		instead, more = visit(s, m.Sent)
		return instead, more
	}
	seen := make(map[int64]bool)
	err := db.writer.settle(ctx)
	for _, n := range []int{min(limit, rewriteFirst), limit} {
		if err == nil && more {
			err = db.rewriteArchive(ctx, owner, peer, n, db.ids.tagged(id), seen, shown)
		}
	}
	if err == nil {
		texts := [][]byte{xmpp.AppendEscaped(nil, id), []byte(nsCorrect)}
		err = db.rewriteSpool(ctx, owner, func(m mam.Message) (*xmpp.Stanza, bool) {
			if !slices.ContainsFunc(texts, func(text []byte) bool { return bytes.Contains(m.XML, text) }) {
				return nil, true
			}
			return shown(m)
		})
	}
	if err != nil {
		return fmt.Errorf("rewrite messages of %s: %w", owner, err)
	}
	return nil
}

const (
	rewriteFirst = 100  // chosen: messages that are looked at first; most retractions are of one of the last few
	rewriteRead  = 1000 // chosen: messages whose tag is not known that are read; some milliseconds, and there are ever fewer
)

// rewriteArchive looks at the tags of the limit newest messages, which the index of peers has, and reads the messages that may be meant.
func (db *DB) rewriteArchive(ctx context.Context, owner, peer jid.JID, limit int, tag int64, seen map[int64]bool, visit func(mam.Message) (*xmpp.Stanza, bool)) error {
	bare, _ := db.ids.peer(peer.Bare())
	who := db.messageRow(owner)
	var changed []*write
	err := db.readWith(ctx, "RewriteMessages", &db.pager, func(q queries) error {
		var orders []int64
		if err := q.rows(db.tagged, []any{owner.Domainpart(), owner.Localpart(), bare, limit, tag, tag << tagBits}, func(scan func(...any) error) error {
			var order int64
			err := scan(&order)
			if !seen[order] {
				orders = append(orders, order)
			}
			return err
		}); err != nil {
			return err
		}
		slices.Sort(orders)
		more := true
		for _, order := range slices.Backward(orders[max(0, len(orders)-rewriteRead):]) {
			if !more {
				break
			}
			seen[order] = true
			if err := q.rows("SELECT e.id, m.stamp, m.stanza, e.flags FROM archive_entry e JOIN message m ON m.id = e.message_id WHERE "+archiveOwner+" AND e.id = $3",
				[]any{owner.Domainpart(), owner.Localpart(), order}, func(scan func(...any) error) error {
					m, err := db.scanMessage(who, scan)
					if err != nil {
						return err
					}
					var instead *xmpp.Stanza
					if instead, more = visit(m); instead == nil {
						return nil
					}
					op := &write{size: writeCost + instead.Size(), at: m.Stamp.UnixMicro()}
					op.run = func(q queries) error { return db.replaceMessage(q, owner, m, op.order, instead) }
					if err := db.writer.enqueue(op, queueFull); err != nil {
						return err
					}
					changed = append(changed, op)
					return nil
				}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, op := range changed {
		err = cmp.Or(err, op.Wait(ctx))
	}
	return err
}

// replaceMessage gives one owner's entry a message of its own; the one that it had may be another owner's too.
func (db *DB) replaceMessage(q queries, owner jid.JID, m mam.Message, row int64, instead *xmpp.Stanza) error {
	var account, old int64
	found, err := q.row("SELECT e.account_id, e.message_id FROM archive_entry e WHERE "+archiveOwner+" AND e.id = $3",
		[]any{owner.Domainpart(), owner.Localpart(), m.Order}, &account, &old)
	if err != nil || !found { // deleted since it was read
		return err
	}
	if err := insertMessage(q, row, m.Stamp, instead); err != nil {
		return err
	}
	if _, err := q.exec("UPDATE archive_entry SET message_id = $3, flags = flags & 5 WHERE account_id = $1 AND id = $2", account, m.Order, row); err != nil { // without flagSpool
		return err
	}
	return db.dropMessage(q, old)
}

func (db *DB) rewriteSpool(ctx context.Context, owner jid.JID, visit func(mam.Message) (*xmpp.Stanza, bool)) error {
	var gone []int64
	err := db.readWith(ctx, "rewriteSpool", &db.pager, func(q queries) error {
		gone = nil
		more := true
		return q.rows(`SELECT m.id, m.stamp, m.stanza FROM account a JOIN offline_message m ON m.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY m.id DESC`, []any{owner.Domainpart(), owner.Localpart()}, func(scan func(...any) error) error {
			if !more {
				return nil
			}
			var m mam.Message
			var id, stamp int64
			if err := scan(&id, &stamp, &m.XML); err != nil {
				return err
			}
			m.Stamp = time.UnixMicro(stamp).UTC()
			var instead *xmpp.Stanza
			if instead, more = visit(m); instead != nil {
				gone = append(gone, id)
			}
			return nil
		})
	})
	if err != nil || gone == nil {
		return err
	}
	return db.write(ctx, func(q queries) error {
		account, err := db.accountID(q, owner)
		for i := 0; err == nil && i < len(gone); i++ {
			var size int64
			var found bool
			if found, err = q.row("DELETE FROM offline_message WHERE account_id = $1 AND id = $2 RETURNING length(stanza)", []any{account, gone[i]}, &size); err == nil && found {
				_, err = q.exec("UPDATE offline_spool SET messages = messages - 1, bytes = bytes - $2 WHERE account_id = $1", account, size)
			}
		}
		return err
	})
}

// ArchivePreferences are what the account has set: XEP-0441.
func (db *DB) ArchivePreferences(ctx context.Context, owner jid.JID) (p mam.Preferences, err error) {
	p.Default = mam.Always
	var always, never string
	err = db.read(ctx, "ArchivePreferences", func(q queries) error {
		_, err := q.row(`SELECT p.standard, p.always, p.never FROM account a JOIN archive_preferences p ON p.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2`, []any{owner.Domainpart(), owner.Localpart()}, &p.Default, &always, &never)
		return err
	})
	if err == nil {
		p.Always, err = splitJIDs(always)
	}
	if err == nil {
		p.Never, err = splitJIDs(never)
	}
	if err != nil {
		return mam.Preferences{}, fmt.Errorf("archive preferences of %s: %w", owner, err)
	}
	return p, nil
}

// SetArchivePreferences replaces them.
func (db *DB) SetArchivePreferences(ctx context.Context, owner jid.JID, p mam.Preferences) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.accountID(q, owner)
		if err != nil {
			return err
		}
		_, err = q.exec(`INSERT INTO archive_preferences (account_id, standard, always, never) VALUES ($1, $2, $3, $4)
			ON CONFLICT (account_id) DO UPDATE SET standard = excluded.standard, always = excluded.always, never = excluded.never`,
			id, string(p.Default), joinJIDs(p.Always), joinJIDs(p.Never))
		return err
	})
	if err != nil {
		return fmt.Errorf("set archive preferences of %s: %w", owner, err)
	}
	return nil
}

// joinJIDs and splitJIDs are a list of JIDs in one column: U+000A is no character of a JID.
func joinJIDs(list []jid.JID) string {
	var b strings.Builder
	for _, j := range list {
		b.WriteString(j.String())
		b.WriteByte('\n')
	}
	return b.String()
}

func splitJIDs(s string) (list []jid.JID, err error) {
	for s != "" {
		one, rest, _ := strings.Cut(s, "\n")
		j, err := jid.ParseUnsafe(one) // stored in canonical form
		if err != nil {
			return nil, fmt.Errorf("stored JID %q: %w", one, err)
		}
		list, s = append(list, j.JID), rest
	}
	return list, nil
}

// TrimArchive deletes up to limit of an account's oldest archived messages that are older than before (unless zero), or more than the newest
// keep (unless 0), whether a client has got them or not. It returns how many.
func (db *DB) TrimArchive(ctx context.Context, owner jid.JID, before time.Time, keep, limit int) (n int, err error) {
	var upTo int64
	err = db.readWith(ctx, "TrimArchive", &db.pager, func(q queries) error {
		upTo = 0
		if !before.IsZero() {
			upTo = before.UnixMicro() - 1
		}
		if keep > 0 {
			var order int64
			_, err := q.row("SELECT e.id FROM archive_entry e WHERE "+archiveOwner+" ORDER BY e.id DESC LIMIT 1 OFFSET $3",
				[]any{owner.Domainpart(), owner.Localpart(), keep}, &order)
			if err != nil {
				return err
			}
			upTo = max(upTo, order)
		}
		// Mostly there is nothing, and that needs no write.
		var one int
		found, err := q.row("SELECT 1 FROM archive_entry e WHERE "+archiveOwner+" AND e.id <= $3 LIMIT 1",
			[]any{owner.Domainpart(), owner.Localpart(), upTo}, &one)
		if !found {
			upTo = 0
		}
		return err
	})
	if err == nil && upTo > 0 {
		err = db.write(ctx, func(q queries) error {
			account, err := db.accountID(q, owner)
			if err == nil {
				n, err = db.deleteEntries(q, account, upTo, limit)
			}
			return err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("trim archive of %s: %w", owner, err)
	}
	return n, nil
}

// deleteEntries deletes the first archived entries of an account, and the messages that nobody else has.
func (db *DB) deleteEntries(q queries, account, upTo int64, limit int) (int, error) {
	return db.deleteMessages(q, `DELETE FROM archive_entry WHERE account_id = $1 AND id IN
		(SELECT id FROM archive_entry WHERE account_id = $1 AND id <= $2 AND flags <> 2 ORDER BY id LIMIT $3) RETURNING message_id`, account, upTo, limit)
}

// deleteMessages runs a statement that deletes entries and returns their messages, and deletes those that nobody has any more.
func (db *DB) deleteMessages(q queries, text string, args ...any) (int, error) {
	var rows []int64
	err := q.rows(text, args, func(scan func(...any) error) error {
		var row int64
		err := scan(&row)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		if err := db.dropMessage(q, row); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

// dropMessage deletes a message that nobody has any more.
func (db *DB) dropMessage(q queries, row int64) error {
	_, err := q.exec("DELETE FROM message WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM archive_entry WHERE message_id = $1)", row)
	if err == nil {
		err = db.indexAgain(q, row) // also without the words of this owner alone
	}
	return err
}

// deleteArchive deletes what is kept for an account, in transactions that others do not wait for; the last portion is left for the
// transaction that deletes the account.
func (db *DB) deleteArchive(ctx context.Context, owner jid.JID) error {
	for {
		n := 0
		err := db.write(ctx, func(q queries) (err error) {
			account, err := db.accountID(q, owner)
			if err == nil {
				n, err = db.deleteAll(q, account, deletePortion)
			}
			return err
		})
		if err != nil || n < deletePortion {
			return err
		}
	}
}

// deletePortion is how many messages one transaction deletes. chosen: about ten milliseconds.
const deletePortion = 500

func (db *DB) deleteAll(q queries, account int64, limit int) (int, error) {
	return db.deleteMessages(q, `DELETE FROM archive_entry WHERE account_id = $1 AND id IN
		(SELECT id FROM archive_entry WHERE account_id = $1 ORDER BY id LIMIT $2) RETURNING message_id`, account, limit)
}
