package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// Server answers the command line.
type Server struct {
	http *http.Server
}

// requestTimeout is how long one request may take. chosen: a slow database and some PBKDF2 runs fit.
const requestTimeout = 30 * time.Second

// NewServer makes a server for the accounts and for what is known of other servers.
func NewServer(accounts Accounts, federation Federation, log *slog.Logger) *Server {
	return &Server{&http.Server{
		Handler:           handler{accounts, federation, log},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      2 * requestTimeout,
		IdleTimeout:       5 * time.Second,
		MaxHeaderBytes:    16 << 10, // a JID in the query may need three bytes for one
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Serve answers requests until Shutdown, then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown closes the listener and waits for the requests that are under way until ctx is done.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

type handler struct {
	accounts   Accounts
	federation Federation
	log        *slog.Logger
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/export":
		h.export(w, r)
		return
	case r.Method == http.MethodPost && r.URL.Path == "/import":
		h.imports(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	var a answer
	err := h.handle(ctx, r, &a)
	if err != nil {
		a = answer{}
	}
	h.answer(w, a, err)
}

// export writes an account's data for as long as that takes.
func (h handler) export(w http.ResponseWriter, r *http.Request) {
	account, err := parse(r.URL.Query().Get("jid"))
	if err != nil {
		h.answer(w, answer{}, badRequest{err})
		return
	}
	h.unhurried(w)
	w.Header().Set("Trailer", errorTrailer)
	w.Header().Set("Content-Type", "application/xml")
	begun := &begun{w: w}
	switch err := h.accounts.Export(r.Context(), account, begun); {
	case err != nil && !begun.yes:
		w.Header().Del("Trailer")
		h.answer(w, answer{}, err)
	case err != nil:
		w.Header().Set(errorTrailer, strings.Join(strings.Fields(err.Error()), " "))
	default:
		h.log.Info("account exported", "jid", account.String(), "by", "control socket")
	}
}

// begun notes whether anything was written.
type begun struct {
	w   io.Writer
	yes bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.w.Write(p)
}

// imports reads a document of any length.
func (h handler) imports(w http.ResponseWriter, r *http.Request) {
	h.unhurried(w)
	done, err := h.accounts.Import(r.Context(), r.Body)
	for _, j := range done.Accounts {
		h.log.Info("account imported", "jid", j, "by", "control socket")
	}
	if err != nil {
		_, _ = io.Copy(io.Discard, r.Body) // who still writes reads no answer
	}
	h.answer(w, answer{Imported: &done}, err)
}

// unhurried takes the time limits from a request.
func (h handler) unhurried(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	if err := errors.Join(c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{})); err != nil {
		h.log.Debug("deadline on the control socket", "err", err)
	}
}

// answer writes the answer to a request.
func (h handler) answer(w http.ResponseWriter, a answer, err error) {
	status := http.StatusOK
	if err != nil {
		a.Error, status = err.Error(), statusOf(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(a); err != nil {
		h.log.Debug("answer on the control socket", "err", err)
	}
}

// badRequest is an error of the asker.
type badRequest struct{ error }

// statusOf maps errors to status codes; the client maps them back.
func statusOf(err error) int {
	switch {
	case errors.As(err, new(badRequest)):
		return http.StatusBadRequest
	case errors.Is(err, auth.ErrNoAccount):
		return http.StatusNotFound
	case errors.Is(err, auth.ErrAccountExists):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

func (h handler) handle(ctx context.Context, r *http.Request, a *answer) (err error) {
	q := r.URL.Query()
	switch r.URL.Path {
	case "/accounts":
	case "/sessions":
		return h.sessions(ctx, r.Method, q, a)
	case "/federation":
		a.Streams, err = h.federation.Streams(ctx)
		return err
	case "/federation/explain":
		a.Lines, err = h.federation.Explain(ctx, q.Get("from"), q.Get("domain"))
		return err
	default:
		return badRequest{errors.New("there are only /accounts, /sessions and /federation")}
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut:
		req, account, err := decode(r.Body)
		if err != nil {
			return badRequest{err}
		}
		if r.Method == http.MethodPost {
			return h.done("account added", account, h.accounts.Add(ctx, account, req.Password))
		}
		return h.done("password changed", account, h.accounts.SetPassword(ctx, account, req.Password))
	case http.MethodDelete:
		account, err := parse(q.Get("jid"))
		if err != nil {
			return badRequest{err}
		}
		return h.done("account deleted", account, h.accounts.Delete(ctx, account))
	case http.MethodGet:
		limit, err := strconv.Atoi(q.Get("limit"))
		if err != nil || limit < 1 || limit > maxPage {
			return badRequest{fmt.Errorf("limit must be from 1 to %d", maxPage)}
		}
		list, err := h.accounts.List(ctx, q.Get("domain"), q.Get("after"), limit)
		for _, account := range list {
			a.Accounts = append(a.Accounts, account.String())
		}
		return err
	}
	return badRequest{fmt.Errorf("method %.16q", r.Method)}
}

// sessions lists or ends the sessions of an account.
func (h handler) sessions(ctx context.Context, method string, q url.Values, a *answer) (err error) {
	who, err := jid.Parse(q.Get("jid"))
	if err != nil || who.Localpart() == "" {
		return badRequest{fmt.Errorf("%.256q is not a JID of the form name@domain or name@domain/resource", q.Get("jid"))}
	}
	switch method {
	case http.MethodGet:
		if who.Resourcepart() != "" {
			return badRequest{fmt.Errorf("%.256q is not a bare JID", who)}
		}
		a.Sessions, a.Tokens, err = h.accounts.Sessions(ctx, who)
		return err
	case http.MethodDelete:
		tokens, err := strconv.ParseBool(q.Get("tokens"))
		if err != nil {
			return badRequest{errors.New("tokens must be true or false")}
		}
		a.Ended, a.Revoked, err = h.accounts.Kick(ctx, who, tokens)
		return h.done("sessions ended", who, err)
	}
	return badRequest{fmt.Errorf("method %.16q", method)}
}

// done logs a change: it came from outside of the server's own protocols.
func (h handler) done(what string, account jid.JID, err error) error {
	if err == nil {
		h.log.Info(what, "jid", account.String(), "by", "control socket")
	}
	return err
}

func decode(body io.Reader) (req request, account jid.JID, err error) {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return req, account, err
	}
	if _, err := d.Token(); err != io.EOF {
		return req, account, errors.New("more than one value")
	}
	account, err = parse(req.JID)
	return req, account, err
}

// parse reads the address of an account.
func parse(s string) (jid.JID, error) {
	j, err := jid.Parse(s)
	if err != nil || j.Localpart() == "" || j.Resourcepart() != "" {
		return j, fmt.Errorf("%.256q is not a bare JID of the form name@domain", s)
	}
	return j, nil
}
