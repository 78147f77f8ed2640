package storage

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/stream"
)

// firstTime is a row of outgoing that has no time: it has the number that it had before.
const firstTime = 1 << 40

// AppendUnsent keeps a stanza of an account that goes to another server, behind those that are kept: the row that says which, and the commit, which
// ends when it is synced. The bytes of a message that is stored (Stanza.Row) are not stored again. It does not block: when the queue is full the row
// is 0 and the commit ends at once with ErrOverloaded. The commit ends with auth.ErrNoAccount when there is no such account.
func (db *DB) AppendUnsent(s *xmpp.Stanza, at time.Time) (row int64, c *xmpp.Commit) {
	op := &write{size: writeCost, at: at.UnixMicro()}
	if s.Row == 0 {
		op.size += s.Size()
	}
	op.run = func(q queries) error {
		var err error
		n := int64(1)
		if s.Row != 0 {
			_, err = q.exec("INSERT INTO outgoing (id, message_id) VALUES ($1, $2)", op.order, s.Row)
		} else {
			n, err = q.exec("INSERT INTO outgoing (id, account_id, stanza) SELECT $1, id, $4 FROM account WHERE domain = $2 AND localpart = $3",
				op.order, s.From.Domainpart(), s.From.Localpart(), s.AppendTo(make([]byte, 0, s.Size())))
		}
		if err == nil && n == 0 {
			err = refuse(auth.ErrNoAccount)
		}
		if err != nil {
			return fmt.Errorf("unsent stanza of %s: %w", s.From.Bare(), err)
		}
		return nil
	}
	if err := db.writer.enqueue(op, queueFull); err != nil {
		op.Complete(fmt.Errorf("unsent stanza of %s: %w", s.From.Bare(), err))
		return 0, &op.Commit
	}
	return op.order, &op.Commit
}

// Unsent reads up to limit stanzas that are kept, in order, beginning after the row after (0 from the start). The stanza is nil where it cannot be read
// any more, or was deleted from its sender's archive; the time is zero where it is not known.
func (db *DB) Unsent(ctx context.Context, after int64, limit int) (list []xmpp.Unsent, err error) {
	err = db.writer.settle(ctx)
	if err == nil {
		err = db.read(ctx, "Unsent", func(q queries) error {
			list = nil
			parser := stream.NewParser(storedLimits)
			return q.rows(`SELECT o.id, COALESCE(m.stanza, o.stanza) FROM outgoing o LEFT JOIN message m ON m.id = o.message_id
				WHERE o.id > $1 ORDER BY o.id LIMIT $2`, []any{after, limit}, func(scan func(...any) error) error {
				var u xmpp.Unsent
				var b []byte
				if err := scan(&u.Row, &b); err != nil {
					return err
				}
				if u.Row >= firstTime {
					u.Since = time.UnixMicro(u.Row)
				}
				if b != nil {
					var bad error
					if u.Stanza, bad = parser.Parse(b); bad != nil {
						db.log.Error("unsent stanza cannot be read", "id", u.Row, "error", bad)
						u.Stanza = nil
					}
				}
				list = append(list, u)
				return nil
			})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("unsent stanzas: %w", err)
	}
	return list, nil
}

// RemoveUnsent forgets rows, those that are not there too.
func (db *DB) RemoveUnsent(ctx context.Context, rows []int64) error {
	list := append(make([]byte, 0, 18*len(rows)+2), '[')
	for i, row := range rows {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, row, 10)
	}
	list = append(list, ']')
	err := db.writer.do(ctx, len(list), func(q queries) error {
		_, err := q.exec(db.e.removeUnsent, string(list))
		return err
	})
	if err != nil {
		return fmt.Errorf("remove unsent stanzas: %w", err)
	}
	return nil
}
