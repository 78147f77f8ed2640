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

	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// Client is the accounts of a running server.
type Client struct {
	http *http.Client
}

var _ Accounts = (*Client)(nil)

// Dial finds the server that runs on a data folder. Close ends the client.
func Dial(ctx context.Context, dir string) (*Client, error) {
	c, err := connect(ctx, dir)
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("the running server does not answer: %w", err)
	}
	return &Client{&http.Client{Timeout: 2 * requestTimeout, Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx, dir) },
		IdleConnTimeout: time.Second,
	}}}, nil
}

// Close closes the client's connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Add implements Accounts.
func (c *Client) Add(ctx context.Context, account jid.JID, password string) error {
	_, err := c.do(ctx, http.MethodPost, nil, &request{account.String(), password})
	return err
}

// SetPassword implements Accounts.
func (c *Client) SetPassword(ctx context.Context, account jid.JID, password string) error {
	_, err := c.do(ctx, http.MethodPut, nil, &request{account.String(), password})
	return err
}

// Delete implements Accounts.
func (c *Client) Delete(ctx context.Context, account jid.JID) error {
	_, err := c.do(ctx, http.MethodDelete, url.Values{"jid": {account.String()}}, nil)
	return err
}

// List implements Accounts. limit is at most 1000.
func (c *Client) List(ctx context.Context, domain, after string, limit int) ([]jid.JID, error) {
	a, err := c.do(ctx, http.MethodGet, url.Values{"domain": {domain}, "after": {after}, "limit": {strconv.Itoa(limit)}}, nil)
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

func (c *Client) do(ctx context.Context, method string, query url.Values, body *request) (a answer, err error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return a, err
		}
		content = bytes.NewReader(text)
	}
	// The host is a formality of HTTP.
	r, err := http.NewRequestWithContext(ctx, method, "http://balcony/accounts?"+query.Encode(), content)
	if err != nil {
		return a, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		// The address in the error would tell nobody anything.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return a, fmt.Errorf("ask the running server: %w", err)
	}
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
