package c2s

import (
	"crypto/tls"

	"balcony/xmpp/auth"
	"balcony/xmpp/router"

	"mellium.im/xmpp/jid"
)

// agent is what a client has said of itself with SASL2 (XEP-0388 §2.3). The id itself is a secret and is not kept.
type agent struct {
	Client   string `json:"client,omitempty"` // auth.ClientID
	Software string `json:"software,omitempty"`
	Device   string `json:"device,omitempty"`
}

// newAgent is nil for a client that said nothing.
func newAgent(account jid.JID, r *request) *agent {
	a := agent{auth.ClientID(account, r.Agent.ID), auth.AgentText(r.Agent.Software), auth.AgentText(r.Agent.Device)}
	if a == (agent{}) {
		return nil
	}
	return &a
}

// String names the mode for an operator.
func (m Mode) String() string {
	switch m {
	case STARTTLS:
		return "STARTTLS"
	case DirectTLS:
		return "TLS"
	}
	return "unknown"
}

// Waiting reports whether the session has no connection.
func (s *session) Waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil
}

// Describe fills in what the transport knows of the session.
func (s *session) Describe(d *router.Description) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Since, d.Connected, d.Inactive, d.Held = s.since, s.conn != nil, s.inactive, len(s.held.index)
	if s.agent != nil {
		d.Client, d.Software, d.Device = s.agent.Client, s.agent.Software, s.agent.Device
	}
	if m := s.sm; m != nil {
		d.Managed, d.Resumable, d.Queue, d.QueueBytes = true, m.resume, len(m.queue.items), m.queue.bytes
	}
	if s.last.remote.IsValid() {
		d.Address, d.Transport = s.last.remote.String(), s.last.transport
	}
	if s.last.version != 0 {
		d.TLS = tls.VersionName(s.last.version) + " " + tls.CipherSuiteName(s.last.suite)
	}
	if s.conn == nil {
		d.Until = s.expires
	} else if o := s.conn.out.Load(); o != nil {
		d.Outbox = o.bytes()
	}
}
