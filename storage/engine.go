package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// engine is what differs between the databases. sqlite.go and postgres.go make one; nothing else asks which it is.
type engine struct {
	name string

	// writes has one connection, the writer's. reads has a few; nil when only the writer's connection sees the data.
	writes, reads *sql.DB
	// pages is for the pages of archives; nil for reads.
	pages *sql.DB
	// searches is for searches in archives; nil for reads.
	searches *sql.DB
	// migrates is for migrations, which may take long: without time limits. It may be writes.
	migrates *sql.DB

	// begin starts a transaction that will write.
	begin string
	// migrationLock is run first in the transaction of a migration: two processes may start at the same time.
	migrationLock string
	// lockAccount finds the id of an account ($1 domain, $2 localpart) and keeps other processes from changing the account's rows until the
	// transaction ends.
	lockAccount string
	// nodesBetween is the condition that a node n is of the service $1 and was created between the nodes with the ids $3 and $4.
	nodesBetween string
	// usePeer and useResource stand behind a mention of archive_entry where its index of peers, or of their resources, is to be used.
	usePeer, useResource string
	// removeUnsent deletes the rows of outgoing whose ids are in a JSON array ($1): any number of them with one statement.
	removeUnsent string
	// useMessage is the same for its index of messages.
	useMessage string
	// text is the full-text search.
	text textIndex
	// words replaces {{archive_text}}, {{id}}, {{key}}, {{text}}, {{bytes}}, {{nothing}}, {{random}} and {{clustered}} in migrations.
	words *strings.Replacer
	// deadline gives a call its longest time, where the driver needs a context for that.
	deadline func(context.Context) (context.Context, context.CancelFunc)
	// unavailable says whether err means that the database cannot work now, rather than that the statement is wrong.
	unavailable func(err error) bool
	// keepConnection: the data live in the writer's connection, so it is not given up after a failed commit.
	keepConnection bool
}

// textIndex is what differs in full-text search, of the table archive_text.
type textIndex struct {
	insert string // adds the row $1 with the words $2, which have a space between
	clear  string // forgets all rows
	match  string // the condition that a row t meets $1, which is made of:
	word   string // a word
	begins string // words that begin with it
	and    string // between two of these
}

func (e *engine) close() error {
	var err error
	for _, pool := range []*sql.DB{e.reads, e.pages, e.searches} {
		if pool != nil {
			err = errors.Join(err, pool.Close())
		}
	}
	return errors.Join(err, e.migrates.Close(), e.writes.Close())
}

// wrap marks errors that mean that the database cannot work now.
func (e *engine) wrap(err error) error {
	if err != nil && !errors.Is(err, ErrUnavailable) && e.unavailable(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// queries runs statements: those of one read, or those of one write inside the writer's transaction. Every text is a constant of
// this package; values go in as parameters only.
type queries struct {
	ctx     context.Context
	prepare func(ctx context.Context, text string) (*sql.Stmt, error)
	failed  *error       // set to the error of any statement; nil outside of a transaction
	late    func() error // why no more statements may be run; nil for no such reason
}

// statement is the prepared statement for text.
func (q queries) statement(text string) (*sql.Stmt, error) {
	if q.late != nil {
		if err := q.late(); err != nil {
			return nil, err
		}
	}
	return q.prepare(q.ctx, text)
}

func (q queries) note(err error) error {
	if err != nil && q.failed != nil {
		*q.failed = err
	}
	return err
}

// exec runs a statement and returns how many rows it changed.
func (q queries) exec(text string, args ...any) (int64, error) {
	st, err := q.statement(text)
	if err != nil {
		return 0, q.note(err)
	}
	res, err := st.ExecContext(q.ctx, args...)
	if err != nil {
		return 0, q.note(err)
	}
	return res.RowsAffected()
}

// row reads the one row that text gives; found is false when there is none.
func (q queries) row(text string, args []any, dest ...any) (found bool, err error) {
	st, err := q.statement(text)
	if err != nil {
		return false, q.note(err)
	}
	err = st.QueryRowContext(q.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, q.note(err)
}

// rows calls each for every row that text gives; it scans with what it is given.
func (q queries) rows(text string, args []any, each func(scan func(dest ...any) error) error) error {
	st, err := q.statement(text)
	if err != nil {
		return q.note(err)
	}
	rows, err := st.QueryContext(q.ctx, args...)
	if err != nil {
		return q.note(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return q.note(errors.Join(rows.Err(), rows.Close()))
}

// prepared keeps the prepared statements of a pool, one a text.
type prepared struct {
	pool *sql.DB
	m    sync.Map // string -> *sql.Stmt
}

func (p *prepared) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if st, ok := p.m.Load(text); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := p.pool.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if other, loaded := p.m.LoadOrStore(text, st); loaded {
		return other.(*sql.Stmt), st.Close()
	}
	return st, nil
}
