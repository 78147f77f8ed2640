package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"balcony/cmd/balcony/pie"
	"balcony/xmpp/auth"
	"balcony/xmpp/router"
	"balcony/xmpp/s2s"

	"mellium.im/xmpp/jid"
)

// Client is the accounts and the federation of a running server.
type Client struct {
	http *http.Client
}

var (
	_ Accounts   = (*Client)(nil)
	_ Federation = (*Client)(nil)
)

// Dial finds the server that runs on a data folder. Close ends the client.
func Dial(ctx context.Context, dir string) (*Client, error) {
	c, err := connect(ctx, dir)
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("the running server does not answer: %w", err)
	}
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx, dir) },
		IdleConnTimeout: time.Second,
	}}}, nil
}

// Close closes the client's connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Add implements Accounts.
func (c *Client) Add(ctx context.Context, account jid.JID, password string) error {
	_, err := c.do(ctx, http.MethodPost, "accounts", nil, &request{account.String(), password})
	return err
}

// SetPassword implements Accounts.
func (c *Client) SetPassword(ctx context.Context, account jid.JID, password string) error {
	_, err := c.do(ctx, http.MethodPut, "accounts", nil, &request{account.String(), password})
	return err
}

// Delete implements Accounts.
func (c *Client) Delete(ctx context.Context, account jid.JID) error {
	_, err := c.do(ctx, http.MethodDelete, "accounts", url.Values{"jid": {account.String()}}, nil)
	return err
}

// List implements Accounts. limit is at most 1000.
func (c *Client) List(ctx context.Context, domain, after string, limit int) ([]jid.JID, error) {
	a, err := c.do(ctx, http.MethodGet, "accounts", url.Values{"domain": {domain}, "after": {after}, "limit": {strconv.Itoa(limit)}}, nil)
	if err != nil {
		return nil, err
	}
	list := make([]jid.JID, 0, len(a.Accounts))
	for _, s := range a.Accounts {
		account, err := jid.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("list of the running server: %w", err)
		}
		list = append(list, account)
	}
	return list, nil
}

// Streams implements Federation.
func (c *Client) Streams(ctx context.Context) ([]s2s.Stream, error) {
	a, err := c.do(ctx, http.MethodGet, "federation", nil, nil)
	return a.Streams, err
}

// Explain implements Federation.
func (c *Client) Explain(ctx context.Context, local, remote string) ([]string, error) {
	a, err := c.do(ctx, http.MethodGet, "federation/explain", url.Values{"from": {local}, "domain": {remote}}, nil)
	return a.Lines, err
}

// Sessions implements Accounts.
func (c *Client) Sessions(ctx context.Context, account jid.JID) ([]router.Description, []auth.TokenInfo, error) {
	a, err := c.do(ctx, http.MethodGet, "sessions", url.Values{"jid": {account.String()}}, nil)
	return a.Sessions, a.Tokens, err
}

// Kick implements Accounts.
func (c *Client) Kick(ctx context.Context, who jid.JID, tokens bool) (sessions, revoked int, err error) {
	a, err := c.do(ctx, http.MethodDelete, "sessions", url.Values{"jid": {who.String()}, "tokens": {strconv.FormatBool(tokens)}}, nil)
	return a.Ended, a.Revoked, err
}

// Export implements Accounts.
func (c *Client) Export(ctx context.Context, account jid.JID, w io.Writer) error {
	resp, err := c.ask(ctx, http.MethodGet, "export", url.Values{"jid": {account.String()}}, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		_, err := read(resp)
		return err
	}
	_, err = io.Copy(w, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("answer of the running server: %w", err)
	}
	if text := resp.Trailer.Get(errorTrailer); text != "" {
		return errors.New(text)
	}
	return nil
}

// Import implements Accounts.
func (c *Client) Import(ctx context.Context, r io.Reader) (pie.Imported, error) {
	resp, err := c.ask(ctx, http.MethodPost, "import", nil, io.NopCloser(r))
	if err != nil {
		return pie.Imported{}, err
	}
	a, err := read(resp)
	if a.Imported == nil {
		return pie.Imported{}, err
	}
	return *a.Imported, err
}

func (c *Client) do(ctx context.Context, method, what string, query url.Values, body *request) (a answer, err error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return a, err
		}
		content = bytes.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	resp, err := c.ask(ctx, method, what, query, content)
	if err != nil {
		return a, err
	}
	return read(resp)
}

func (c *Client) ask(ctx context.Context, method, what string, query url.Values, content io.Reader) (*http.Response, error) {
	// The host is a formality of HTTP.
	r, err := http.NewRequestWithContext(ctx, method, "http://balcony/"+what+"?"+query.Encode(), content)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		// The address in the error would tell nobody anything.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("ask the running server: %w", err)
	}
	return resp, nil
}

// read reads an answer that is not a document.
func read(resp *http.Response) (a answer, err error) {
	err = json.NewDecoder(io.LimitReader(resp.Body, 8<<20)).Decode(&a)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return a, fmt.Errorf("answer of the running server: %w", err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return a, nil
	case http.StatusNotFound:
		return a, auth.ErrNoAccount
	case http.StatusConflict:
		return a, auth.ErrAccountExists
	}
	return a, errors.New(a.Error)
}
