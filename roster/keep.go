package roster

import (
	"context"
	"encoding/json"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// kept is what a session has of the roster's across a restart of the server.
type kept struct {
	Interested bool     `json:"interested"`
	Directed   []string `json:"directed,omitempty"`
}

// save is xmpp.Keeper's.
func (m *Module) save(s xmpp.Session) []byte {
	r := resourceOf(s)
	if r == nil {
		return nil
	}
	var k kept
	if err := r.account.take(context.Background()); err == nil {
		k.Interested = r.interested
		r.account.give()
	}
	r.mu.Lock()
	for _, to := range r.directed {
		k.Directed = append(k.Directed, to.String())
	}
	r.mu.Unlock()
	b, err := json.Marshal(k)
	if err != nil {
		return nil
	}
	return b
}

// restore is xmpp.Keeper's.
func (m *Module) restore(ctx context.Context, s xmpp.Session, b []byte) error {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return err
	}
	r := resourceOf(s)
	if err := m.load(ctx, r.account); err != nil {
		return err
	}
	if err := r.account.take(ctx); err != nil {
		return err
	}
	r.interested = k.Interested
	r.account.give()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range k.Directed {
		to, err := jid.Parse(text)
		if err != nil {
			return err
		}
		if r.directed == nil {
			r.directed = make(map[string]jid.JID)
		}
		r.directed[text] = to
	}
	return nil
}
