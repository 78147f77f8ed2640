package storage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"balcony/roster"

	"mellium.im/xmpp/jid"
)

var _ roster.Store = (*DB)(nil)

// The bits of roster_item.state.
const (
	stateTo = 1 << iota
	stateFrom
	stateAsk
	stateIn
	stateApproved
	stateListed
	stateRemoved // the row tells RosterSince that the item left; without any other bit it is no item
)

// itemRow are the columns of a roster item in the order of dest; contact is empty when an outer join found none.
type itemRow struct {
	contact, name, groups string
	state, version        int64
	request               []byte
}

func (r *itemRow) dest() []any {
	return []any{&r.contact, &r.name, &r.groups, &r.state, &r.version, &r.request}
}

// item makes the item; removed says that the row also stands for an item that left.
func (r *itemRow) item() (item roster.Item, removed bool, err error) {
	contact, err := jid.ParseUnsafe(r.contact) // stored in canonical form
	if err != nil {
		return roster.Item{}, false, fmt.Errorf("stored contact %q: %w", r.contact, err)
	}
	item = roster.Item{Contact: contact.JID, Name: r.name, Groups: splitGroups(r.groups), Request: r.request, Version: r.version}
	item.To, item.From, item.Ask = r.state&stateTo != 0, r.state&stateFrom != 0, r.state&stateAsk != 0
	item.In, item.Approved, item.Listed = r.state&stateIn != 0, r.state&stateApproved != 0, r.state&stateListed != 0
	return item, r.state&stateRemoved != 0, nil
}

// groupEnd follows each group in roster_item.group_names. XML has no such character, so no group has it.
const groupEnd = "\x1f"

func joinGroups(groups []string) (string, error) {
	var b strings.Builder
	for _, g := range groups {
		if strings.Contains(g, groupEnd) {
			return "", fmt.Errorf("group %q: character that XML does not have", g)
		}
		b.WriteString(g)
		b.WriteString(groupEnd)
	}
	return b.String(), nil
}

func splitGroups(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, groupEnd), groupEnd)
}

func stateOf(i roster.Item) (state int64) {
	for _, b := range []struct {
		set bool
		bit int64
	}{{i.To, stateTo}, {i.From, stateFrom}, {i.Ask, stateAsk}, {i.In, stateIn}, {i.Approved, stateApproved}, {i.Listed, stateListed}} {
		if b.set {
			state |= b.bit
		}
	}
	return state
}

// Roster returns all items of an account, listed or not, in the order of their JIDs, and the roster's version.
func (db *DB) Roster(ctx context.Context, owner jid.JID) (items []roster.Item, version int64, err error) {
	err = db.read(ctx, "Roster", func(q queries) error {
		items = nil
		var row itemRow
		dest := append([]any{&version}, row.dest()...)
		return q.rows(`SELECT r.version, coalesce(i.contact, ''), coalesce(i.name, ''), coalesce(i.group_names, ''), coalesce(i.state, 0),
			coalesce(i.version, 0), i.request
			FROM account a JOIN roster r ON r.account_id = a.id
			LEFT JOIN roster_item i ON i.account_id = a.id AND i.state <> 64
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY i.contact`,
			[]any{owner.Domainpart(), owner.Localpart()},
			func(scan func(...any) error) error {
				if err := scan(dest...); err != nil || row.contact == "" {
					return err
				}
				item, _, err := row.item()
				items = append(items, item)
				return err
			})
	})
	if err != nil {
		return nil, 0, fmt.Errorf("roster of %s: %w", owner, err)
	}
	return items, version, nil
}

// RosterSince returns the listed items that changed after version, removed ones included (with nothing but Contact, Version and
// Removed), in the order of their change, and the present version. ok is false when the store can no longer tell.
func (db *DB) RosterSince(ctx context.Context, owner jid.JID, version int64) (items []roster.Item, now int64, ok bool, err error) {
	err = db.read(ctx, "RosterSince", func(q queries) error {
		items = nil
		var row itemRow
		var oldest int64
		dest := append([]any{&now, &oldest}, row.dest()...)
		// Bits 32 and 64: listed or removed.
		return q.rows(`SELECT r.version, r.oldest, coalesce(i.contact, ''), coalesce(i.name, ''), coalesce(i.group_names, ''), coalesce(i.state, 0),
			coalesce(i.version, 0), i.request
			FROM account a JOIN roster r ON r.account_id = a.id
			LEFT JOIN roster_item i ON i.account_id = a.id AND i.version > $3 AND (i.state & 96) <> 0 AND r.oldest <= $3
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY i.version`,
			[]any{owner.Domainpart(), owner.Localpart(), version},
			func(scan func(...any) error) error {
				if err := scan(dest...); err != nil {
					return err
				}
				ok = oldest <= version && version <= now
				if !ok || row.contact == "" {
					return nil
				}
				item, removed, err := row.item()
				if removed {
					item = roster.Item{Contact: item.Contact, Version: item.Version, Removed: true}
				}
				items = append(items, item)
				return err
			})
	})
	if err != nil {
		return nil, 0, false, fmt.Errorf("roster changes of %s: %w", owner, err)
	}
	return items, now, ok, nil
}

// RosterItem returns one item; found is false when there is none.
func (db *DB) RosterItem(ctx context.Context, owner, contact jid.JID) (item roster.Item, found bool, err error) {
	err = db.read(ctx, "RosterItem", func(q queries) (err error) {
		var row itemRow
		found, err = q.row(`SELECT i.contact, i.name, i.group_names, i.state, i.version, i.request
			FROM account a JOIN roster_item i ON i.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 AND i.contact = $3 AND i.state <> 64`,
			[]any{owner.Domainpart(), owner.Localpart(), contact.Bare().String()}, row.dest()...)
		if err == nil && found {
			item, _, err = row.item()
		}
		return err
	})
	if err != nil {
		return roster.Item{}, false, fmt.Errorf("roster item of %s: %w", owner, err)
	}
	return item, found, nil
}

// RosterOwners returns up to limit accounts in whose rosters the item of contact has To, From, Ask, In or Approved, in the order of their
// creation. after is 0 at first and then what next was; no owners are left when next is 0.
func (db *DB) RosterOwners(ctx context.Context, contact jid.JID, after int64, limit int) (owners []jid.JID, next int64, err error) {
	err = db.read(ctx, "RosterOwners", func(q queries) error {
		owners, next = nil, 0
		// Bits 1 to 16: to, from, ask, in, approved.
		return q.rows(`SELECT a.id, a.localpart, a.domain FROM roster_item i JOIN account a ON a.id = i.account_id
			WHERE i.contact = $1 AND i.account_id > $2 AND (i.state & 31) <> 0 ORDER BY i.account_id LIMIT $3`,
			[]any{contact.Bare().String(), after, limit},
			func(scan func(...any) error) error {
				var localpart, domain string
				if err := scan(&next, &localpart, &domain); err != nil {
					return err
				}
				owners = append(owners, jid.NewUnsafe(localpart, domain, "").JID) // stored in canonical form
				return nil
			})
	})
	if err != nil {
		return nil, 0, fmt.Errorf("rosters with %s: %w", contact, err)
	}
	return owners, next, nil
}

// rosterHead is the row of an account in the table roster.
type rosterHead struct {
	account                  int64
	version, oldest          int64
	items, requests, removed int
}

// UpdateItem changes one item as roster.Store says. change runs on the writer's goroutine while the caller waits, and it may run more
// than once (on the same stored item) when the transaction has to be repeated, so it must not call the database and should only set what it
// is given. A request that is larger than Limits.RequestBytes is refused with roster.ErrFull too.
func (db *DB) UpdateItem(ctx context.Context, owner, contact jid.JID, change func(*roster.Item) bool) (item roster.Item, err error) {
	contact = contact.Bare()
	err = db.write(ctx, func(q queries) error {
		account, err := db.accountID(q, owner)
		if err != nil {
			return err
		}
		var row itemRow
		found, err := q.row("SELECT contact, name, group_names, state, version, request FROM roster_item WHERE account_id = $1 AND contact = $2",
			[]any{account, contact.String()}, row.dest()...)
		if err != nil {
			return err
		}
		was := storedItem{Item: roster.Item{Contact: contact}, found: found}
		if found {
			if was.Item, was.removed, err = row.item(); err != nil {
				return err
			}
			was.row = was.Version
			if stateOf(was.Item) == 0 {
				was.Item = roster.Item{Contact: contact} // it left; for the caller there is none
			}
		}
		item = was.Item
		item.Groups = slices.Clone(was.Groups)
		if !change(&item) {
			item = was.Item
			return nil
		}
		return db.putItem(q, account, was, &item)
	})
	if err != nil {
		return roster.Item{}, fmt.Errorf("roster item of %s: %w", owner, err)
	}
	return item, nil
}

// storedItem is what the row of an item says, or that there is none.
type storedItem struct {
	roster.Item
	found   bool
	removed bool  // the row stands for an item that left, beside what is hidden in it
	row     int64 // version of the row
}

// putItem writes what was has become.
func (db *DB) putItem(q queries, account int64, was storedItem, item *roster.Item) error {
	head := rosterHead{account: account}
	if _, err := q.row("SELECT version, oldest, items, requests, removed FROM roster WHERE account_id = $1",
		[]any{account}, &head.version, &head.oldest, &head.items, &head.requests, &head.removed); err != nil {
		return err
	}
	item.Contact, item.Removed = was.Contact, false
	if !item.In {
		item.Request = nil
	}
	if item.Listed && !was.Listed && head.items >= db.limits.RosterItems ||
		item.In && (!was.In && head.requests >= db.limits.RosterRequests || len(item.Request) > db.limits.RequestBytes) {
		return refuse(roster.ErrFull)
	}

	switch visible := item.Listed != was.Listed || item.Listed && differs(was.Item, *item); {
	case visible:
		head.version++
		item.Version = head.version
	case was.found:
		item.Version = was.row
	default:
		item.Version = head.version
	}
	// RFC 6121 §2.6.3: a client that comes back with an older version is told that the item left.
	removed := !item.Listed && (was.Listed || was.removed)
	state := stateOf(*item)
	if state == 0 {
		*item = roster.Item{Contact: item.Contact, Version: item.Version} // no item: nothing else of it is kept
	}
	head.items += count(item.Listed) - count(was.Listed)
	head.requests += count(item.In) - count(was.In)
	head.removed += count(removed) - count(was.removed)

	if err := putRow(q, account, item, state, removed, was.found); err != nil {
		return err
	}
	if head.removed > db.limits.RosterRemoved {
		if err := forgetRemoved(q, &head); err != nil {
			return err
		}
	}
	_, err := q.exec("UPDATE roster SET version = $2, oldest = $3, items = $4, requests = $5, removed = $6 WHERE account_id = $1",
		account, head.version, head.oldest, head.items, head.requests, head.removed)
	return err
}

func putRow(q queries, account int64, item *roster.Item, state int64, removed, found bool) error {
	contact := item.Contact.String()
	if state == 0 && !removed {
		if !found {
			return nil
		}
		_, err := q.exec("DELETE FROM roster_item WHERE account_id = $1 AND contact = $2", account, contact)
		return err
	}
	if removed {
		state |= stateRemoved
	}
	groups, err := joinGroups(item.Groups)
	if err != nil {
		return err
	}
	_, err = q.exec(`INSERT INTO roster_item (account_id, contact, name, group_names, state, version, request)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (account_id, contact) DO UPDATE SET name = excluded.name, group_names = excluded.group_names,
			state = excluded.state, version = excluded.version, request = excluded.request`,
		account, contact, item.Name, groups, state, item.Version, item.Request)
	return err
}

// forgetRemoved drops the older half of the items that left, so that their search is paid once in many removals; versions before the
// newest dropped one can no longer be told apart.
func forgetRemoved(q queries, head *rosterHead) error {
	// Bit 64: removed.
	if _, err := q.row("SELECT version FROM roster_item WHERE account_id = $1 AND (state & 64) <> 0 ORDER BY version LIMIT 1 OFFSET $2",
		[]any{head.account, head.removed / 2}, &head.oldest); err != nil {
		return err
	}
	gone, err := q.exec("DELETE FROM roster_item WHERE account_id = $1 AND version <= $2 AND state = 64", head.account, head.oldest)
	if err != nil {
		return err
	}
	kept, err := q.exec("UPDATE roster_item SET state = state - 64 WHERE account_id = $1 AND version <= $2 AND (state & 64) <> 0",
		head.account, head.oldest)
	if err != nil {
		return err
	}
	head.removed -= int(gone + kept)
	return nil
}

// differs reports whether something that clients see of a listed item has changed.
func differs(a, b roster.Item) bool {
	return a.Name != b.Name || !slices.Equal(a.Groups, b.Groups) || a.To != b.To || a.From != b.From || a.Ask != b.Ask || a.Approved != b.Approved
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
