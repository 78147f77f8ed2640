// Package avatar implements XEP-0398: User Avatar to vCard-Based Avatars Conversion 1.0.0: avatars that were published by XEP-0084 are shown by
// XEP-0153 and the other way round, and the server puts the hash into presence.
package avatar

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"log/slog"
	"strconv"
	"strings"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Namespaces and nodes.
const (
	NS            = "urn:xmpp:pep-vcard-conversion:0" // XEP-0398 §2
	NSUpdate      = "vcard-temp:x:update"             // XEP-0153 §3
	NSData        = "urn:xmpp:avatar:data"            // XEP-0084 §4, also the node
	NSMetadata    = "urn:xmpp:avatar:metadata"        // XEP-0084 §4, also the node
	nsVCard       = "vcard-temp"
	maxRemembered = 50_000    // hashes. chosen: some 10 MB
	maxCard       = 224 << 10 // bytes of a vCard with an avatar that comes from the nodes. chosen: with its envelope below the bound of a stanza
	noPhoto       = "-"       // in place of the hash, of a vCard without a photo
)

// Nodes are the accounts' nodes.
type Nodes interface {
	// Newest returns the newest item of a node, or that with the id, and whether everybody may read it; nil for none.
	Newest(ctx context.Context, account jid.JID, node, id string) (payload []byte, open bool, err error)
	// Put publishes an item to a node, which is made open if it is not there. The change is not told to this module.
	Put(ctx context.Context, account jid.JID, node, id string, payload []byte) error
}

// Cards are the accounts' vCards.
type Cards interface {
	// VCard returns the account's vCard element, nil when it has none.
	VCard(ctx context.Context, account jid.JID) ([]byte, error)
	// UpdateVCard stores what change makes of the account's vCard element, nil for none, while nobody else changes it; when change returns nil it leaves what is
	// there. It may call change more than once.
	UpdateVCard(ctx context.Context, account jid.JID, change func(stored []byte) []byte) error
}

// Module converts avatars and shows their hashes.
type Module struct {
	// Static after New.
	nodes Nodes
	cards Cards
	log   *slog.Logger

	hashes *xmpp.Cache[string] // of accounts' photos, noPhoto for a vCard without one, "" without a vCard
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. It comes after the module that blocks stanzas and before the roster.
func New(nodes Nodes, cards Cards, log *slog.Logger) *Module {
	return &Module{nodes: nodes, cards: cards, log: log, hashes: xmpp.NewCache[string](maxRemembered)}
}

// Protocol lists XEP-0398 and XEP-0153.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{XEP: 153, Version: "1.1.1", Status: xmpp.Complete, Note: "the server puts the hash into presence; a changed avatar is shown with the next one"},
		{XEP: 398, Version: "1.0.0", Status: xmpp.Complete},
	}
}

// Register adds the filter and the feature.
func (m *Module) Register(r *xmpp.Registry) {
	r.Feature(xmpp.ToContact, NS) // XEP-0398 §2
	r.Outgoing(m.outgoing)
	r.Deleted(func(_ context.Context, account jid.JID) { m.forget(account) })
}

// Published hears of the metadata of a new avatar: XEP-0398 §3.1. payload is nil when there is no metadata any more. The photo goes into the vCard, which
// everybody may read, only where the nodes are open (§8).
func (m *Module) Published(ctx context.Context, account jid.JID, payload []byte, open bool) {
	if err := m.toCard(ctx, account, payload, open); err != nil {
		m.log.Error("put avatar into vCard", "account", account.String(), "err", err)
	}
}

// Configured hears that who may read one of the nodes has changed, or that data are gone: an avatar that not everybody may get does not stay in the vCard
// (XEP-0398 §8), and one that everybody may get by now comes there. Another photo stays, which is no avatar of these nodes.
func (m *Module) Configured(ctx context.Context, account jid.JID) {
	if err := m.check(ctx, account); err != nil {
		m.log.Error("keep avatar in step with vCard", "account", account.String(), "err", err)
	}
}

func (m *Module) check(ctx context.Context, account jid.JID) error {
	payload, open, err := m.nodes.Newest(ctx, account, NSMetadata, "")
	if err != nil || payload == nil {
		return err
	}
	meta, ok := readMetadata(payload)
	if !ok || len(meta.Info) == 0 {
		return nil
	}
	photo, err := m.photo(ctx, account, meta, open)
	if err != nil || photo != nil {
		if err == nil {
			err = m.setPhoto(ctx, account, photo)
		}
		return err
	}
	return m.removePhoto(ctx, account, meta, true)
}

// metadata is XEP-0084 §4.2.
type metadata struct {
	Info []struct {
		ID   string `xml:"id,attr"`
		Type string `xml:"type,attr"`
		URL  string `xml:"url,attr"`
	} `xml:"urn:xmpp:avatar:metadata info"`
}

func readMetadata(payload []byte) (meta metadata, ok bool) {
	return meta, payload == nil || xml.Unmarshal(payload, &meta) == nil
}

func (m *Module) toCard(ctx context.Context, account jid.JID, payload []byte, open bool) error {
	taken := payload == nil
	if taken {
		// An item was taken away: another one may be the newest by now.
		left, now, err := m.nodes.Newest(ctx, account, NSMetadata, "")
		if err != nil {
			return err
		}
		if left != nil {
			payload, open = left, now
		}
	}
	meta, ok := readMetadata(payload)
	if !ok {
		return nil
	}
	if len(meta.Info) == 0 { // XEP-0084 §4.2: the user has no avatar
		if !open {
			return nil // nor had these nodes one in the vCard
		}
		return m.setPhoto(ctx, account, nil)
	}
	photo, err := m.photo(ctx, account, meta, open)
	switch {
	case err != nil:
		return err
	case photo != nil:
		return m.setPhoto(ctx, account, photo)
	case taken && open:
		return m.removePhoto(ctx, account, meta, false) // it was that of the item
	}
	return nil
}

// photo is the avatar as the vCard has it, nil when there is none that everybody may get; open says that of the metadata.
func (m *Module) photo(ctx context.Context, account jid.JID, meta metadata, open bool) (*xmpp.Element, error) {
	for _, info := range meta.Info {
		if info.URL != "" {
			continue // XEP-0398 §3.1: what lies elsewhere cannot be taken
		}
		data, dataOpen, err := m.nodes.Newest(ctx, account, NSData, info.ID)
		if err != nil {
			return nil, err
		}
		image, ok := imageOf(data)
		if !ok || !open || !dataOpen || hashOf(image) != strings.ToLower(info.ID) {
			return nil, nil // XEP-0398 §3.1: the hash must match the id
		}
		return xmpp.El("", "PHOTO").Add(xmpp.El("", "TYPE").Say(info.Type), xmpp.El("", "BINVAL").Say(base64.StdEncoding.EncodeToString(image))), nil
	}
	return nil, nil
}

// imageOf reads the <data/> of XEP-0084 §4.1.
func imageOf(payload []byte) ([]byte, bool) {
	var data struct {
		XMLName xml.Name `xml:"urn:xmpp:avatar:data data"`
		Text    string   `xml:",chardata"`
	}
	if payload == nil || xml.Unmarshal(payload, &data) != nil {
		return nil, false
	}
	return decode(data.Text)
}

// decode reads base64 with white space, as XEP-0054 and XEP-0084 have it.
func decode(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
	return b, err == nil && len(b) > 0
}

// hashOf is the id of an image: XEP-0084 §4.2.1, XEP-0153 §3.1.
func hashOf(image []byte) string {
	h := sha1.Sum(image)
	return hex.EncodeToString(h[:])
}

// setPhoto replaces the photo of the vCard, or removes it.
func (m *Module) setPhoto(ctx context.Context, account jid.JID, photo *xmpp.Element) error {
	defer m.forget(account)
	return m.cards.UpdateVCard(ctx, account, func(stored []byte) []byte { return withPhoto(stored, photo) })
}

// removePhoto removes the photo of the vCard if it is one of these, or if these is false, if it is none of them.
func (m *Module) removePhoto(ctx context.Context, account jid.JID, meta metadata, these bool) error {
	defer m.forget(account)
	return m.cards.UpdateVCard(ctx, account, func(stored []byte) []byte {
		image, _, ok := photoOf(stored)
		if !ok {
			return nil
		}
		hash, one := hashOf(image), false
		for _, info := range meta.Info {
			one = one || strings.ToLower(info.ID) == hash
		}
		if one != these {
			return nil
		}
		return withPhoto(stored, nil)
	})
}

// withPhoto is a vCard with that photo in the place of its own, nil if it is like that.
func withPhoto(stored []byte, photo *xmpp.Element) []byte {
	card := xmpp.El(nsVCard, "vCard")
	if stored != nil {
		if card = readCard(stored); card == nil {
			return nil // nothing is lost for a photo
		}
	}
	kept := card.Children[:0:0]
	had := false
	for _, c := range card.Children {
		if c.Local == "PHOTO" {
			had = true
			continue
		}
		kept = append(kept, c)
	}
	if photo == nil && !had {
		return nil
	}
	card.Children = kept
	if photo != nil {
		photo.Space = nsVCard
		card.Add(photo)
	}
	whole := card.AppendTo(nil, "")
	if len(whole) > maxCard && photo != nil {
		card.Children = kept
		whole = card.AppendTo(nil, "")
	}
	if bytes.Equal(whole, stored) {
		return nil
	}
	return whole
}

func readCard(stored []byte) *xmpp.Element {
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(string(stored))))
	if err != nil {
		return nil
	}
	return e
}

// photoOf finds the image in a vCard: XEP-0054 §3 and XEP-0153 §4.1.
func photoOf(stored []byte) (image []byte, typ string, ok bool) {
	var card struct {
		Photo struct {
			Type   string `xml:"vcard-temp TYPE"`
			Binval string `xml:"vcard-temp BINVAL"`
		} `xml:"vcard-temp PHOTO"`
	}
	if stored == nil || xml.Unmarshal(stored, &card) != nil {
		return nil, "", false
	}
	image, ok = decode(card.Photo.Binval)
	return image, strings.TrimSpace(card.Photo.Type), ok
}

// Stored hears of a vCard that a client has stored: XEP-0398 §3.2. The image is published, the metadata after the data.
func (m *Module) Stored(ctx context.Context, account jid.JID, before, card []byte) {
	defer m.forget(account)
	if err := m.toNodes(ctx, account, before, card); err != nil {
		m.log.Error("publish avatar of vCard", "account", account.String(), "err", err)
	}
}

func (m *Module) toNodes(ctx context.Context, account jid.JID, before, card []byte) error {
	image, typ, ok := photoOf(card)
	old, _, had := photoOf(before)
	if !ok {
		if !had {
			return nil
		}
		// XEP-0084 §4.2: whoever takes the photo out of the vCard has no avatar any more.
		return m.nodes.Put(ctx, account, NSMetadata, "current", xmpp.El(NSMetadata, "metadata").AppendTo(nil, ""))
	}
	hash := hashOf(image)
	if had && hash == hashOf(old) {
		return nil
	}
	if typ == "" {
		typ = "image/png" // XEP-0084 §4.2.1: every client can show it
	}
	data := xmpp.El(NSData, "data").Say(base64.StdEncoding.EncodeToString(image))
	if err := m.nodes.Put(ctx, account, NSData, hash, data.AppendTo(nil, "")); err != nil {
		return err
	}
	info := xmpp.El("", "info", "bytes", strconv.Itoa(len(image)), "id", hash, "type", typ)
	return m.nodes.Put(ctx, account, NSMetadata, hash, xmpp.El(NSMetadata, "metadata").Add(info).AppendTo(nil, ""))
}

// outgoing puts the hash into available presence, directed presence too: XEP-0398 §4.
func (m *Module) outgoing(ctx context.Context, o *xmpp.Outgoing) error {
	s := o.Stanza
	if s.Kind != xmpp.Presence || s.Type != "" {
		return nil
	}
	x, there := s.Child(NSUpdate, "x")
	said, photo := "", false
	if there {
		var v struct {
			Photo *string `xml:"vcard-temp:x:update photo"`
		}
		if x.Decode(&v) == nil && v.Photo != nil {
			said, photo = strings.TrimSpace(*v.Photo), true
		}
	}
	if photo && said == "" {
		return nil // the client has no avatar to show
	}
	hash, err := m.hash(ctx, o.Sender.JID().Bare())
	if err != nil {
		m.log.Error("load vCard", "account", o.Sender.JID().Bare().String(), "err", err)
		return nil // presence is worth more than a picture
	}
	switch {
	case said != "" && (said == hash || hash == "" || hash == noPhoto):
		return nil
	case hash == "" && !there:
		return nil // an account without a vCard has never had an avatar
	case hash == "" || hash == noPhoto:
		hash = "" // XEP-0153 §4.1: "If there is no avatar image to be advertised, the photo element MUST be empty"; an <x/> without it is overwritten
	}
	o.Stanza = s.Without(func(sp xmpp.Span) bool { return sp.Space == NSUpdate && sp.Local == "x" }).
		Append(xmpp.El(NSUpdate, "x").Add(xmpp.El("", "photo").Say(hash)))
	return nil
}

// hash is that of the account's photo, "" for none, from memory if it was used lately.
func (m *Module) hash(ctx context.Context, account jid.JID) (string, error) {
	key := account.String()
	hash, ok, gen := m.hashes.Get(key)
	if ok {
		return hash, nil
	}
	card, err := m.cards.VCard(ctx, account)
	if err != nil {
		return "", err
	}
	if image, _, ok := photoOf(card); ok {
		hash = hashOf(image)
	} else if card != nil {
		hash = noPhoto
	}
	m.hashes.Put(key, hash, 1, gen)
	return hash, nil
}

func (m *Module) forget(account jid.JID) { m.hashes.Drop(account.Bare().String()) }

// Forget drops what is remembered of an account. Call it after its data were deleted.
func (m *Module) Forget(account jid.JID) { m.forget(account) }
