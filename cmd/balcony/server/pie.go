package server

import (
	"context"
	"io"

	"balcony/cmd/balcony/pie"
	"balcony/roster"
	"balcony/storage"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
)

// Export writes everything that is held on an account as XEP-0227. auth.ErrNoAccount, before anything is written, if there is none.
func (a *Accounts) Export(ctx context.Context, account jid.JID, w io.Writer) error {
	if err := a.check(account); err != nil {
		return err
	}
	return pie.Export(ctx, w, a.s.db, account)
}

// Import makes accounts of a document that Export or another server has written.
func (a *Accounts) Import(ctx context.Context, r io.Reader) (pie.Imported, error) {
	return pie.Import(ctx, r, importTarget{a.s.modules.pubsub.Store(), database{a.s.db}, a.s})
}

// importTarget is the database, but for what a running server has to know of as well.
type importTarget struct {
	pubsub.Store // nodes are changed through their module, which remembers them
	database
	s *Server
}

// database is embedded where methods of its own are to come first.
type database struct{ *storage.DB }

var _ pie.Target = importTarget{}

// Serves reports whether accounts of the domain can be here.
func (t importTarget) Serves(domain string) bool { return t.s.router.Serves(domain) }

// AccountExists also refuses an account that is online: its sessions would not see what is imported.
func (t importTarget) AccountExists(ctx context.Context, account jid.JID) (bool, error) {
	if len(t.s.router.Sessions(account)) > 0 {
		return false, pie.ErrInUse
	}
	return t.DB.AccountExists(ctx, account)
}

// CreateAccount makes an account behind who remembers that there was none.
func (t importTarget) CreateAccount(ctx context.Context, account jid.JID, v []auth.Verifier) error {
	defer t.s.auth.Made(account)
	return t.DB.CreateAccount(ctx, account, v)
}

// DeleteAccount removes what an import that failed has made. The contacts are told nothing: they know of nothing.
func (t importTarget) DeleteAccount(ctx context.Context, account jid.JID) error {
	err := t.s.auth.Delete(ctx, account)
	t.s.router.Forget(account)
	t.s.modules.roster.Forget(account)
	t.s.modules.blocking.Forget(account)
	t.s.modules.archive.Forget(account)
	t.s.modules.offline.Forget(account)
	t.s.modules.pubsub.Gone(account)
	t.s.modules.avatar.Forget(account)
	return err
}

// Archives reports whether the messages of an account are archived.
func (t importTarget) Archives(account jid.JID) bool {
	return t.s.modules.archive.Enabled(account.Domainpart())
}

// ImportArchive also makes the spool read again what waits: a session of the account that has just ended, or has just begun, would save over it what it
// knew.
func (t importTarget) ImportArchive(ctx context.Context, account jid.JID, after int64, items []mam.Foreign) (int64, error) {
	defer t.s.modules.offline.Reread(account)
	return t.DB.ImportArchive(ctx, account, after, items)
}

// SetArchivePreferences changes them behind the archive's module.
func (t importTarget) SetArchivePreferences(ctx context.Context, account jid.JID, p mam.Preferences) error {
	defer t.s.modules.archive.Forget(account)
	return t.DB.SetArchivePreferences(ctx, account, p)
}

// SetVerifiers replaces how the account logs in.
func (t importTarget) SetVerifiers(ctx context.Context, account jid.JID, v []auth.Verifier) error {
	return t.s.auth.SetVerifiers(ctx, account, v)
}

// SetPassword replaces the account's password.
func (t importTarget) SetPassword(ctx context.Context, account jid.JID, password string) error {
	return t.s.auth.SetPassword(ctx, account, password)
}

// SetAccountDisabled forbids the account to log in.
func (t importTarget) SetAccountDisabled(ctx context.Context, account jid.JID, disabled bool) error {
	return t.s.auth.SetDisabled(ctx, account, disabled)
}

// SetVCard changes the vCard behind the module that knows the hash of its photo.
func (t importTarget) SetVCard(ctx context.Context, account jid.JID, element []byte) error {
	defer t.s.modules.avatar.Forget(account)
	return t.DB.SetVCard(ctx, account, element)
}

// UpdateItem changes the roster behind its module, which must not remember the empty one.
func (t importTarget) UpdateItem(ctx context.Context, account, contact jid.JID, change func(*roster.Item) bool) (roster.Item, error) {
	defer t.s.modules.roster.Forget(account)
	return t.DB.UpdateItem(ctx, account, contact, change)
}

// Block changes the block list behind its module, which must not remember the empty one.
func (t importTarget) Block(ctx context.Context, account jid.JID, entries []jid.JID) error {
	defer t.s.modules.blocking.Forget(account)
	return t.DB.Block(ctx, account, entries)
}
