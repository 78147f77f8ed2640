// Package upload implements XEP-0363: HTTP File Upload 1.2.0: the service upload.DOMAIN that hands out slots, and the HTTP handler behind
// them. What is uploaded lies in a Files, what is known of it in a Store.
package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// Namespaces of the protocol.
const (
	NS        = "urn:xmpp:http:upload:0"         // XEP-0363 §3
	NSPurpose = "urn:xmpp:http:upload:purpose:0" // XEP-0363 §5

	nsData = "jabber:x:data" // XEP-0004 §2
)

// Label is the label of the service's host beside a domain.
const Label = "upload"

// Bucket is what a file counts against and how long it is kept (XEP-0363 §5).
type Bucket uint8

// The buckets.
const (
	Messages  Bucket = iota // attachments, ephemeral ones too
	Profiles                // avatars: kept until newer ones need the room
	Permanent               // kept until the account goes
)

// File is what is known of an uploaded file.
type File struct {
	ID      string  // see NewID: its name in Files
	Account jid.JID // bare
	Bucket  Bucket
	Size    int64     // bytes
	Type    string    // media type in canonical form, see mediaType; never empty
	Stored  time.Time // when the upload began
	Expires time.Time // from then on it is not served; the zero time for never
	Granted time.Time // when its slot was handed out, the zero time for unknown; for BeginUpload only, it is not kept
}

// Errors of a Store.
var (
	ErrQuota = errors.New("the account's files would be too large")
	ErrUsed  = errors.New("the slot has been used")
	ErrGone  = errors.New("the upload or its account is gone")
)

// Store keeps what is known of files.
type Store interface {
	// UploadUsage returns what an account's files of a bucket that have not expired count, in bytes (Charge).
	UploadUsage(ctx context.Context, account jid.JID, b Bucket, now time.Time) (int64, error)
	// UploadRetry returns when enough of those files will have expired for the others to count at most room; the zero time for never.
	UploadRetry(ctx context.Context, account jid.JID, b Bucket, room int64, now time.Time) (time.Time, error)
	// BeginUpload notes a file that is about to be stored. It counts at once, is not served before FinishUpload, and expires at deadline
	// unless that comes. ErrQuota when the bucket would count more than quota (0: not looked at), ErrUsed when the id is known, ErrGone when
	// there is no such account, or one that is younger than the slot: a name that was given again inherits nothing.
	BeginUpload(ctx context.Context, f File, quota int64, deadline time.Time) error
	// FinishUpload makes the file of BeginUpload be served. Then the oldest finished ones of its bucket expire until the others count at most
	// keep; 0: none does. ErrGone when the account was deleted meanwhile.
	FinishUpload(ctx context.Context, f File, keep int64) error
	// Upload returns a file that has been finished, whether it has expired or not.
	Upload(ctx context.Context, id string) (f File, found bool, err error)
	// AbandonUploads makes those expire that were begun and not finished: when none can be under way.
	AbandonUploads(ctx context.Context) error
	// DoomedUploads returns up to limit ids of files to remove: they have expired, or their account was deleted. ForgetUploads follows.
	DoomedUploads(ctx context.Context, now time.Time, limit int) (ids []string, err error)
	// ForgetUploads removes everything that is known of files.
	ForgetUploads(ctx context.Context, ids ...string) error
}

// Charge is what a file of that size counts against a quota. chosen: a block of the disk at least, which also bounds the number of files.
func Charge(size int64) int64 { return max(size, 4096) }

// Files keeps the contents, by ids. Its methods may be called from any goroutine.
type Files interface {
	// Create begins a file; nothing of it can be opened before Commit. It fails when there is one with that id.
	Create(ctx context.Context, id string) (Writer, error)
	// Open opens a file; fs.ErrNotExist when there is none.
	Open(ctx context.Context, id string) (io.ReadSeekCloser, error)
	// Remove removes a file; nil when there is none.
	Remove(ctx context.Context, id string) error
}

// Writer is a file that is being written. One of Commit and Abort ends it.
type Writer interface {
	io.Writer
	// Commit makes the file durable and lets it be opened, whole.
	Commit() error
	// Abort leaves nothing of it.
	Abort()
}

// Config of the service. Sizes are in bytes, math.MaxInt64 for no limit.
type Config struct {
	MaxSize        int64         // of one file
	Quota          int64         // of an account's message attachments
	ProfileQuota   int64         // of its profile files; 0: that purpose is not offered
	PermanentQuota int64         // of its permanent files; 0: that purpose is not offered
	Keep           time.Duration // of message attachments; 0: for ever
	Gate           GateConfig
	// Stall is how long a transfer may take for StallBytes, in either direction, before it is ended.
	Stall      time.Duration
	StallBytes int64
}

// GateConfig bounds transfers at the same time: in total, for one account, and for one address, from which loopback is exempt.
type GateConfig struct {
	Uploads, UploadsPerAccount, UploadsPerAddress int
	Downloads, DownloadsPerAddress                int
}

// DefaultConfig returns the limits of a server that nobody configured.
func DefaultConfig() Config {
	return Config{
		MaxSize:        100 << 20,           // chosen: a video of a minute from a phone
		Quota:          1 << 30,             // chosen: some hundred photos and videos
		ProfileQuota:   16 << 20,            // XEP-0363 §5.2: "significantly lower"; chosen: many avatars
		PermanentQuota: 256 << 20,           // chosen: the pictures of a blog
		Keep:           90 * 24 * time.Hour, // chosen: every device of a recipient has fetched it by then
		Gate: GateConfig{
			Uploads: 512, UploadsPerAccount: 16, UploadsPerAddress: 64, // chosen: with 64 KiB each, 32 MiB of buffers
			Downloads: 2048, DownloadsPerAddress: 64, // chosen: a page with many pictures, and file descriptors left for sessions
		},
		Stall:      30 * time.Second, // as for other peers that do not read or write
		StallBytes: 32 << 10,         // chosen: about 1 KiB/s, a bad mobile connection
	}
}

const (
	slotTime       = 5 * time.Minute  // XEP-0363 §9: around 300 s
	uploadDeadline = 48 * time.Hour   // chosen: 100 MiB at the slowest speed that is not a stall take 28 hours
	patience       = 30 * time.Second // chosen: for the database, when the client is gone
	sweepInterval  = time.Minute      // chosen: nothing is served after its time anyhow
	sweepBatch     = 100              // chosen: files that are removed before the database hears of it
)

// Module is the service.
type Module struct {
	// Static after Register.
	cfg    Config
	key    []byte
	store  Store
	files  Files
	base   func(domain string) string
	log    *slog.Logger
	server xmpp.Server

	uploads, accounts, downloads *gate
	poke                         chan struct{}
}

var _ xmpp.Module = (*Module)(nil)

// New makes the service. key (32 bytes) signs slots; base is the URL under which clients reach ServeHTTP of a domain, without a slash at its
// end, or empty when they do not.
func New(cfg Config, key []byte, store Store, files Files, base func(domain string) string, log *slog.Logger) *Module {
	g := cfg.Gate
	return &Module{cfg: cfg, key: key, store: store, files: files, base: base, log: log, poke: make(chan struct{}, 1),
		uploads: newGate(g.Uploads, g.UploadsPerAddress), accounts: newGate(math.MaxInt, g.UploadsPerAccount), downloads: newGate(g.Downloads, g.DownloadsPerAddress)}
}

// Protocol lists XEP-0363.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 363, Version: "1.2.0", Status: xmpp.Complete, Note: "with all purposes; no header fields are needed for PUT"}}
}

// Register adds the host and its handler.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	h := r.Host(Label)
	h.Identity(xmpp.Identity{Category: "store", Type: "file", Name: "HTTP File Upload"}) // XEP-0363 §3
	h.Feature(NS, NSPurpose+"#message", NSPurpose+"#ephemeral")                          // XEP-0363 §5
	if m.cfg.ProfileQuota > 0 {
		h.Feature(NSPurpose + "#profile")
	}
	if m.cfg.PermanentQuota > 0 {
		h.Feature(NSPurpose + "#permanent")
	}
	h.Form(m.form)
	h.IQ(stanza.GetIQ, NS, "request", m.request)
}

// form: XEP-0363 §3, the maximum file size.
func (m *Module) form(string) *xmpp.Element {
	if m.cfg.MaxSize == math.MaxInt64 {
		return nil
	}
	return xmpp.El(nsData, "x", "type", "result").Add(
		xmpp.El("", "field", "var", "FORM_TYPE", "type", "hidden").Add(xmpp.El("", "value").Say(NS)),
		xmpp.El("", "field", "var", "max-file-size").Add(xmpp.El("", "value").Say(fmt.Sprint(m.cfg.MaxSize))))
}

// quota is that of a bucket, 0 when it is not offered.
func (m *Module) quota(b Bucket) int64 {
	switch b {
	case Profiles:
		return m.cfg.ProfileQuota
	case Permanent:
		return m.cfg.PermanentQuota
	}
	return m.cfg.Quota
}

// maxSize is that of a file in a bucket.
func (m *Module) maxSize(b Bucket) int64 { return min(m.cfg.MaxSize, m.quota(b)) }

// expires is the end of a file that is stored now; before is an end that the client has set, the zero time for none.
func (m *Module) expires(b Bucket, now, before time.Time) time.Time {
	if b != Messages {
		return time.Time{}
	}
	if m.cfg.Keep > 0 {
		if end := now.Add(m.cfg.Keep); before.IsZero() || end.Before(before) {
			return end
		}
	}
	return before
}

// Recover does away with the uploads that the end of an earlier process has cut. Call it before the first request.
func (m *Module) Recover(ctx context.Context) error { return m.store.AbandonUploads(ctx) }

// Sweep makes Run look now: an account was deleted.
func (m *Module) Sweep() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// Run removes files that have expired, or whose account is gone, until ctx ends.
func (m *Module) Run(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := m.sweep(ctx); err != nil && ctx.Err() == nil {
			m.log.Error("remove uploaded files", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-m.poke:
		}
	}
}

func (m *Module) sweep(ctx context.Context) error {
	for {
		ids, err := m.store.DoomedUploads(ctx, m.server.Now(), sweepBatch)
		if err != nil || len(ids) == 0 {
			return err
		}
		removed := ids[:0]
		for _, id := range ids { // the content first: after a crash it is found again
			e := m.files.Remove(ctx, id)
			if e == nil {
				removed = append(removed, id)
			}
			err = errors.Join(err, e)
		}
		if len(removed) > 0 {
			err = errors.Join(err, m.store.ForgetUploads(ctx, removed...))
		}
		if err != nil {
			return err // the rest comes with the next tick
		}
	}
}
