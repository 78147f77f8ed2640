package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"balcony/xmpp/ext/mam"

	"mellium.im/xmpp/jid"
)

// ReadArchive reads up to limit messages of an archive that are behind an order, fewer when they come to so many bytes. Unlike a query it needs no
// message that is still there to begin behind.
func (db *DB) ReadArchive(ctx context.Context, owner jid.JID, after int64, limit, size int) (page mam.Page, err error) {
	err = db.writer.settle(ctx)
	if err == nil {
		err = db.readWith(ctx, "ReadArchive", &db.pager, func(q queries) error {
			page = mam.Page{}
			b := bounds{after: after, before: math.MaxInt64, start: math.MinInt64, end: math.MaxInt64}
			return db.archivePage(q, owner, &mam.Query{Max: limit, Bytes: size}, b, &page)
		})
	}
	if err != nil {
		return mam.Page{}, fmt.Errorf("archive of %s: %w", owner, err)
	}
	return page, nil
}

// ImportArchive adds messages to an archive where their stamps belong, in one transaction. ID is what the archive that they come from called a message: if
// this database gave that id to the account's message of that time, it keeps it. A stamp later than now is now. What another account has with the same
// stamp and bytes is not written again. Spool makes a message wait, whatever was known of the account's spool before; so its sessions must have
// ended. after is what the call for the messages before these has returned, 0 for the first.
func (db *DB) ImportArchive(ctx context.Context, owner jid.JID, after int64, items []mam.Foreign) (last int64, err error) {
	op := &write{size: writeCost * (1 + len(items)), waits: true, at: time.Now().UnixMicro(), more: int64(len(items))}
	for _, it := range items {
		op.size += it.Stanza.Size()
	}
	op.run = func(q queries) error {
		account, err := db.accountID(q, owner)
		if err != nil {
			return err
		}
		// Everything that was given an order before this write has been written before it, and what comes after it gets a greater one than it has
		// reserved: what is not in the tables is free. A stamp is at most op.order, so the last of n messages is behind it by n at most.
		im := importing{db: db, q: q, owner: owner, account: account, now: op.order, last: after}
		for i := range items {
			if err := im.add(&items[i]); err != nil {
				return err
			}
		}
		if im.waits { // without a state everything waits that was to
			if _, err := q.exec("DELETE FROM spool_state WHERE account_id = $1", account); err != nil {
				return err
			}
		}
		last = im.last
		return nil
	}
	err = db.writer.finish(ctx, op)
	db.spoolChanges(owner) // also after an error, which may have come after the commit
	if err != nil {
		return 0, fmt.Errorf("import archive of %s: %w", owner, err)
	}
	return last, nil
}

// importing is one transaction of an import.
type importing struct {
	db      *DB
	q       queries
	owner   jid.JID
	account int64
	now     int64
	last    int64 // the order that was given last
	waits   bool
}

// nearby is how much earlier than the message before it a message may seem, in microseconds, and still be placed behind it: clocks go back a little.
// chosen: what archive_clock begins with, so that time queries search no further for it.
const nearby = 1_000_000

func (im *importing) add(it *mam.Foreign) error {
	stamp := min(max(it.Stamp.UnixMicro(), 1), im.now) // orders are greater than 0
	xml := it.Stanza.AppendTo(make([]byte, 0, it.Stanza.Size()))
	order, row, err := im.place(it.ID, stamp, xml)
	if err != nil {
		return err
	}
	im.last = order
	if row == 0 {
		row = order
		if _, err := im.q.exec("INSERT INTO message (id, stamp, stanza) VALUES ($1, $2, $3)", order, stamp, xml); err != nil {
			return err
		}
	}
	im.waits = im.waits || it.Spool
	flags := flagArchived + flagSpool*bit(it.Spool) + flagSent*bit(it.Sent)
	peer, resource := im.db.ids.peer(it.Peer)
	if _, err := im.q.exec("INSERT INTO archive_entry (account_id, id, message_id, peer, resource, flags, tag) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		im.account, order, row, peer, resource, flags, im.db.ids.tag(it.Stanza)); err != nil {
		return err
	}
	if err := im.db.indexAgain(im.q, row); err != nil {
		return err
	}
	return im.db.noteSkew(im.q, order-stamp)
}

// place finds a free order for a message, and the row with its bytes if there is one.
func (im *importing) place(id string, stamp int64, xml []byte) (order, row int64, err error) {
	if o, ok := im.db.ids.order(im.owner, id); ok && o >= stamp && o <= im.now && o-stamp <= im.db.storedSkew.Load() {
		if free, row, err := im.free(o, stamp, xml); err != nil || free {
			return o, row, err
		}
	}
	first := stamp
	if im.last >= stamp && im.last-stamp < nearby {
		first = im.last + 1 // in the order of the document
	}
	order = first
	for n := range placeTries {
		if order > im.now {
			// One that the write has reserved, and the next one each time.
			order = max(im.now, im.last) + 1
		}
		free, row, err := im.free(order, stamp, xml)
		if err != nil || free {
			return order, row, err
		}
		// Other servers have stamps of whole seconds, so messages of many accounts want one place: they spread, ever wider.
		order = first + 1 + rand.Int64N(min(int64(8)<<min(n, 30), nearby/2))
	}
	return 0, 0, errors.New("too many messages of one moment")
}

// placeTries bounds the search for a place. chosen: with 100,000 messages in one second each try finds one in four of five cases.
const placeTries = 64

// free reports whether a message can have an order, and the row with its bytes if there is one.
func (im *importing) free(order, stamp int64, xml []byte) (free bool, row int64, err error) {
	var one int
	taken, err := im.q.row("SELECT 1 FROM archive_entry WHERE account_id = $1 AND id = $2", []any{im.account, order}, &one)
	if err != nil || taken {
		return false, 0, err
	}
	exists, same, err := im.same(order, stamp, xml)
	if err != nil || exists {
		return same, order, err
	}
	if order != stamp { // the other end's was first, so it has the stamp itself
		if _, same, err = im.same(stamp, stamp, xml); same {
			row = stamp
		}
	}
	return true, row, err
}

// same reports whether there is a row of that id, and whether it is that message.
func (im *importing) same(id, stamp int64, xml []byte) (exists, same bool, err error) {
	var at int64
	var stored []byte
	exists, err = im.q.row("SELECT stamp, stanza FROM message WHERE id = $1", []any{id}, &at, &stored)
	return exists, exists && at == stamp && bytes.Equal(stored, xml), err
}
