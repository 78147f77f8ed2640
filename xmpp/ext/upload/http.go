package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Path is where ServeHTTP serves, below the base URL.
const Path = "/upload/"

// ServeHTTP serves what is under Path: PUT with a slot, GET and HEAD of what was uploaded, OPTIONS for browsers. The paths are
// /upload/ID/NAME; the name is there for people.
func (m *Module) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	// XEP-0363 §9: web clients of other origins. Nothing depends on cookies or other credentials, so none are allowed.
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Content-Length, Content-Range, Accept-Ranges, ETag, Last-Modified")
	// XEP-0363 §10.1: nothing that was uploaded runs in a browser.
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	id := pathID(r.URL.Path)
	switch r.Method {
	case http.MethodOptions:
		h.Set("Allow", allowed)
		h.Set("Access-Control-Allow-Methods", allowed)
		h.Set("Access-Control-Allow-Headers", "Content-Type, Range, If-None-Match, If-Range")
		h.Set("Access-Control-Max-Age", "7200") // chosen: browsers take no more
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet, http.MethodHead:
		m.get(w, r, id)
	case http.MethodPut:
		m.put(w, r, id)
	default:
		h.Set("Allow", allowed)
		fail(w, http.StatusMethodNotAllowed)
	}
}

const allowed = "OPTIONS, HEAD, GET, PUT"

// pathID is the id in a path, empty when there is none.
func pathID(path string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(path, Path), "/")
	if !validID(id) {
		return ""
	}
	return id
}

// fail answers with a status and its words.
func fail(w http.ResponseWriter, status int) {
	http.Error(w, strings.ToLower(http.StatusText(status)), status)
}

// busy answers who should try again soon.
func busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "10") // chosen: some transfers have ended by then
	fail(w, http.StatusServiceUnavailable)
}

// address is the key of a client's address in a gate, empty for loopback.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	a, err := netip.ParseAddr(host)
	switch a = xmpp.Network(a); {
	case err != nil:
		return host
	case a.IsLoopback():
		return ""
	}
	return a.String()
}

// get serves a file that was uploaded.
func (m *Module) get(w http.ResponseWriter, r *http.Request, id string) {
	if id == "" {
		fail(w, http.StatusNotFound)
		return
	}
	from := address(r)
	if !m.downloads.enter(from) {
		busy(w)
		return
	}
	defer m.downloads.leave(from)
	f, found, err := m.store.Upload(r.Context(), id)
	now := m.server.Now()
	switch {
	case err != nil:
		m.failed(r, "read upload", err)
		busy(w)
		return
	case !found || !f.Expires.IsZero() && !f.Expires.After(now):
		fail(w, http.StatusNotFound)
		return
	}
	content, err := m.files.Open(r.Context(), id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.log.Error("the content of an upload is missing", "id", id)
		fail(w, http.StatusNotFound)
		return
	case err != nil:
		m.failed(r, "open upload", err)
		busy(w)
		return
	}
	defer func() { _ = content.Close() }() // it was only read
	if size, err := content.Seek(0, io.SeekEnd); err != nil || size != f.Size {
		m.log.Error("the content of an upload is damaged", "id", id, "size", size, "want", f.Size, "err", err)
		fail(w, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	typ, attachment := served(f.Type)
	h.Set("Content-Type", typ)
	if attachment {
		h.Set("Content-Disposition", "attachment") // the name is the last part of the URL (RFC 6266 §4.3)
	}
	h.Set("ETag", `"`+id+`"`) // an id is never given twice
	h.Set("Cache-Control", cacheControl(f.Expires, now))
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range") // RFC 9110 §14.2: it may be ignored, and many overlapping ranges are an attack
	}
	http.ServeContent(w, r, "", f.Stored, &paced{ReadSeeker: content, w: http.NewResponseController(w), stall: m.cfg.Stall})
}

// cacheControl lets only the client keep the file, which never changes, and not longer than it may be served.
func cacheControl(expires, now time.Time) string {
	age := 365 * 24 * time.Hour
	if !expires.IsZero() {
		age = min(age, expires.Sub(now))
	}
	return fmt.Sprintf("private, max-age=%d, immutable", int(age.Seconds()))
}

// paced gives the client time for each piece that is read for it.
type paced struct {
	io.ReadSeeker
	w     *http.ResponseController
	stall time.Duration
}

func (p *paced) Read(b []byte) (int, error) {
	_ = p.w.SetWriteDeadline(time.Now().Add(p.stall)) // without it the server's own deadline holds
	return p.ReadSeeker.Read(b[:min(len(b), bufferSize)])
}

const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// put takes a file: XEP-0363 §8.
func (m *Module) put(w http.ResponseWriter, r *http.Request, id string) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // who is refused is told at once: net/http would read the body first
	}
	now := m.server.Now()
	s, err := m.open(r.URL.Query().Get("slot"), now)
	if err != nil || s.ID != id {
		fail(w, http.StatusForbidden)
		return
	}
	account, err := jid.Parse(s.Account)
	if err != nil {
		fail(w, http.StatusForbidden)
		return
	}
	switch {
	case r.ContentLength < 0:
		fail(w, http.StatusLengthRequired)
		return
	case r.ContentLength > s.Size:
		fail(w, http.StatusRequestEntityTooLarge)
		return
	case r.ContentLength < s.Size:
		fail(w, http.StatusBadRequest)
		return
	}
	typ, ok := agree(s.Type, r.Header.Get("Content-Type"))
	if !ok {
		fail(w, http.StatusUnsupportedMediaType)
		return
	}
	from := address(r)
	if !m.uploads.enter(from) {
		busy(w)
		return
	}
	defer m.uploads.leave(from)
	if !m.accounts.enter(s.Account) {
		busy(w)
		return
	}
	defer m.accounts.leave(s.Account)

	f := File{ID: id, Account: account, Bucket: s.Bucket, Size: s.Size, Type: typ, Stored: now}
	if s.Granted != 0 {
		f.Granted = time.UnixMicro(s.Granted)
	}
	if s.Before != 0 {
		f.Expires = time.Unix(s.Before, 0)
	}
	f.Expires = m.expires(f.Bucket, now, f.Expires)
	quota, keep := m.quota(f.Bucket), int64(0)
	if f.Bucket == Profiles {
		quota, keep = 0, quota // the older ones make room, once the new one is there
	}
	switch err := m.store.BeginUpload(r.Context(), f, quota, now.Add(uploadDeadline)); {
	case errors.Is(err, ErrUsed):
		fail(w, http.StatusConflict)
	case errors.Is(err, ErrGone):
		fail(w, http.StatusForbidden)
	case errors.Is(err, ErrQuota):
		fail(w, http.StatusInsufficientStorage) // RFC 4331 §6
	case err != nil:
		m.failed(r, "begin upload", err)
		busy(w)
	default:
		w.Header().Del("Connection")
		m.receive(w, r, f, keep)
	}
}

// agree is the media type of a file of which the slot says announced and the request says sent; false when they differ.
func agree(announced, sent string) (string, bool) {
	if sent != "" {
		sent = mediaType(sent)
	}
	switch {
	case announced != "":
		return announced, sent == announced // XEP-0363 §8: else it should be rejected
	case sent == "":
		return octetStream, true
	}
	return sent, true
}

// receive stores the content of a file that was begun. Whatever goes wrong, nothing is left of it and the slot can be used again.
func (m *Module) receive(w http.ResponseWriter, r *http.Request, f File, keep int64) {
	done := false
	defer func() {
		if done {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience) // the client may be gone
		defer cancel()
		if err := m.files.Remove(ctx, f.ID); err != nil {
			m.failed(r, "remove upload", err) // it expires
			return
		}
		if err := m.store.ForgetUploads(ctx, f.ID); err != nil {
			m.failed(r, "forget upload", err)
		}
	}()
	status, err := m.copy(w, r, f)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
		defer cancel()
		if err = m.store.FinishUpload(ctx, f, keep); err == nil {
			done = true
			m.log.Debug("file uploaded", "account", f.Account.String(), "id", f.ID, "size", f.Size)
			w.WriteHeader(http.StatusCreated)
			return
		}
		status = http.StatusServiceUnavailable
		if errors.Is(err, ErrGone) {
			status = http.StatusForbidden
		}
	}
	m.failed(r, "upload", err)
	w.Header().Set("Connection", "close") // the rest of the body is not read
	fail(w, status)
}

// copy brings the body to the disk, and says with which status it failed.
func (m *Module) copy(w http.ResponseWriter, r *http.Request, f File) (status int, err error) {
	out, err := m.files.Create(r.Context(), f.ID)
	if err != nil {
		return diskStatus(err), err
	}
	committed := false
	defer func() {
		if !committed {
			out.Abort()
		}
	}()
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	control := http.NewResponseController(w)
	left, window := f.Size, int64(0) // bytes until the client gets more time
	for left > 0 {
		if window <= 0 {
			// A piece at a time: dripping bytes does not extend it.
			window = m.cfg.StallBytes
			end := time.Now().Add(m.cfg.Stall)
			if err := errors.Join(control.SetReadDeadline(end), control.SetWriteDeadline(end.Add(m.cfg.Stall))); err != nil {
				return http.StatusInternalServerError, err
			}
		}
		n, err := r.Body.Read(buf[:min(left, int64(len(buf)))])
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return diskStatus(err), err
			}
			left -= int64(n)
			window -= int64(n)
		}
		switch {
		case err == nil || left == 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return http.StatusRequestTimeout, err
		default:
			return http.StatusBadRequest, err // it ended early
		}
	}
	// The disk may take its time to make much durable.
	if err := control.SetWriteDeadline(time.Now().Add(syncTime)); err != nil {
		return http.StatusInternalServerError, err
	}
	if err := out.Commit(); err != nil {
		return diskStatus(err), err
	}
	committed = true
	return 0, nil
}

const syncTime = 5 * time.Minute // chosen: some gigabytes on a slow disk

// diskStatus is the status for a fault of the disk: RFC 4918 §11.5 when it is full, else try again.
func diskStatus(err error) int {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return http.StatusInsufficientStorage
	}
	return http.StatusServiceUnavailable
}

// failed logs what went wrong: what the client did at a lower level.
func (m *Module) failed(r *http.Request, what string, err error) {
	if r.Context().Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrGone) {
		m.log.Debug(what, "err", err)
		return
	}
	m.log.Error(what, "err", err)
}
