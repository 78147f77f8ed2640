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
	"strconv"
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

// NewServer makes a server for the accounts.
func NewServer(accounts Accounts, log *slog.Logger) *Server {
	return &Server{&http.Server{
		Handler:           handler{accounts, log},
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
	accounts Accounts
	log      *slog.Logger
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	var a answer
	err := h.handle(ctx, r, &a)
	status := http.StatusOK
	if err != nil {
		a, status = answer{Error: err.Error()}, statusOf(err)
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

func (h handler) handle(ctx context.Context, r *http.Request, a *answer) error {
	if r.URL.Path != "/accounts" {
		return badRequest{errors.New("there is only /accounts")}
	}
	q := r.URL.Query()
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
