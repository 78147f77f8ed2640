package upload

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

// asked is what a <request/> asks for.
type asked struct {
	name   string // of the file, as it goes into the URL
	size   int64
	typ    string // canonical media type, empty when none was announced
	bucket Bucket
	before time.Time // of an ephemeral file
}

// request: XEP-0363 §4.
func (m *Module) request(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	domain := s.To.Domainpart()
	_, beside, ok := m.server.HostAt(domain)
	if !ok || s.To.Localpart() != "" || s.To.Resourcepart() != "" {
		return nil, xmpp.ErrServiceUnavailable
	}
	if s.From.Localpart() == "" || !m.server.Serves(s.From.Domainpart()) {
		return nil, xmpp.Fail(stanza.Auth, stanza.Forbidden, "Only accounts of this server may upload files") // XEP-0363 §6
	}
	base := m.base(beside)
	if base == "" {
		return nil, xmpp.ErrServiceUnavailable
	}
	q, err := m.parse(s)
	if err != nil {
		return nil, err
	}
	now := m.server.Now()
	if most := m.maxSize(q.bucket); q.size > most {
		return nil, tooLarge(most)
	}
	if !q.before.IsZero() && !q.before.After(now) {
		return nil, xmpp.Fail(stanza.Modify, stanza.BadRequest, "expire-before is in the past")
	}
	account := s.From.Bare()
	if err := m.fits(ctx, account.String(), q, s, now); err != nil {
		return nil, err
	}
	id := newID()
	token := m.seal(slot{ID: id, Account: account.String(), Size: q.size, Type: q.typ, Bucket: q.bucket,
		Before: unix(q.before), Granted: now.UnixMicro(), Expires: now.Add(slotTime).Unix()})
	get := base + Path + id + "/" + url.PathEscape(q.name) // RFC 3986: non-ASCII is percent-encoded
	return xmpp.El(NS, "slot").Add(
		xmpp.El("", "put", "url", get+"?"+url.Values{"slot": {token}}.Encode()),
		xmpp.El("", "get", "url", get)), nil
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// tooLarge: XEP-0363 §6.
func tooLarge(most int64) error {
	return xmpp.Error{
		Stanza: xmpp.Fail(stanza.Modify, stanza.NotAcceptable, fmt.Sprintf("File too large. The maximum file size is %d bytes", most)),
		Detail: xmpp.El(NS, "file-too-large").Add(xmpp.El("", "max-file-size").Say(strconv.FormatInt(most, 10))),
	}
}

// fits checks the account's quota, and tells when to try again: XEP-0363 §6.
func (m *Module) fits(ctx context.Context, account string, q asked, s *xmpp.Stanza, now time.Time) error {
	quota := m.quota(q.bucket)
	if q.bucket == Profiles || quota == math.MaxInt64 {
		return nil // older files make room
	}
	used, err := m.store.UploadUsage(ctx, s.From.Bare(), q.bucket, now)
	if err != nil {
		return fmt.Errorf("quota of %s: %w", account, err)
	}
	room := quota - Charge(q.size)
	if used <= room {
		return nil
	}
	full := xmpp.Error{Stanza: xmpp.Fail(stanza.Wait, stanza.ResourceConstraint, fmt.Sprintf("Quota reached. Your files may take %d bytes", quota))}
	at, err := m.store.UploadRetry(ctx, s.From.Bare(), q.bucket, max(room, 0), now)
	if err != nil {
		return fmt.Errorf("quota of %s: %w", account, err)
	}
	if !at.IsZero() {
		// XEP-0082 §3.2; rounded up, so that it is not too early.
		full.Detail = xmpp.El(NS, "retry", "stamp", at.UTC().Truncate(time.Second).Add(time.Second).Format(time.RFC3339))
	}
	return full
}

// parse reads a <request/>.
func (m *Module) parse(s *xmpp.Stanza) (q asked, err error) {
	var r struct {
		Filename string `xml:"filename,attr"`
		Size     string `xml:"size,attr"`
		Type     string `xml:"content-type,attr"`
		Children []struct {
			XMLName xml.Name
			Before  string `xml:"expire-before,attr"`
		} `xml:",any"`
	}
	p, _ := s.Payload()
	if p.Decode(&r) != nil || r.Filename == "" {
		return q, xmpp.ErrBadRequest
	}
	q.name = fileName(r.Filename)
	q.size, err = strconv.ParseInt(r.Size, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(r.Size, "-"):
		q.size = math.MaxInt64
	case err != nil || q.size <= 0: // XEP-0363 §13: a positive integer
		return q, xmpp.ErrBadRequest
	}
	if r.Type != "" {
		if q.typ = mediaType(r.Type); q.typ == "" {
			return q, xmpp.Fail(stanza.Modify, stanza.BadRequest, "content-type is no media type")
		}
	}
	purposes := 0
	for _, c := range r.Children {
		if c.XMLName.Space != NSPurpose {
			continue
		}
		if purposes++; purposes > 1 {
			return q, xmpp.ErrBadRequest
		}
		switch c.XMLName.Local { // XEP-0363 §5
		case "message":
		case "profile":
			q.bucket = Profiles
		case "permanent":
			q.bucket = Permanent
		case "ephemeral":
			if q.before, err = time.Parse(time.RFC3339, c.Before); err != nil || q.before.Year() < 1970 || q.before.Year() > 9999 {
				return q, xmpp.Fail(stanza.Modify, stanza.BadRequest, "expire-before is no DateTime")
			}
		default:
			return q, xmpp.ErrFeatureNotImpl
		}
		if m.quota(q.bucket) == 0 {
			return q, xmpp.ErrFeatureNotImpl
		}
	}
	return q, nil
}

// maxName bounds the name in a URL in bytes. chosen: what most file systems allow.
const maxName = 255

// fileName makes the last segment of the URL of a file's name: it keeps the name and its ending as far as a path allows (XEP-0363 §4).
func fileName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == utf8.RuneError || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, s)
	if strings.Trim(s, ".") == "" { // RFC 3986 §3.3: dot-segments would be taken out
		return "file"
	}
	if len(s) <= maxName {
		return s
	}
	ending := ""
	if i := strings.LastIndexByte(s, '.'); i >= 0 && len(s)-i <= 32 { // chosen: endings are shorter
		ending = s[i:]
	}
	stem := s[:maxName-len(ending)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return stem + ending
}
