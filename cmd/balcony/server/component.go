package server

import (
	"context"
	"strings"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/component"
	"balcony/xmpp/ext/disco"

	"mellium.im/xmpp/jid"
)

func componentConfig(cfg *config.Config) component.Config {
	c, clients := component.DefaultConfig(), c2sConfig(cfg)
	c.HandshakeTimeout = clients.TLSTimeout
	c.Unauthenticated, c.Authenticated = clients.Unauthenticated, clients.Authenticated
	c.Rate, c.ConnectionsPerAddress = orZero(cfg.Limits.ServerRate), clients.ConnectionsPerAddress
	c.PingAfter = clients.PingAfter
	return c
}

// components are the configured ones. A component is listed by the served domain that its name is below, the nearest one, else by the first.
func components(cfg *config.Config) (list []component.Component) {
	for _, c := range cfg.Components {
		beside := cfg.Domains[0].Name
		best := 0
		for _, d := range cfg.Domains {
			if strings.HasSuffix(c.Name, "."+d.Name) && len(d.Name) > best {
				beside, best = d.Name, len(d.Name)
			}
		}
		list = append(list, component.Component{Name: c.Name, Beside: beside, Secret: c.Secret})
	}
	return list
}

// connected lists the components that are there among the items of their domain (XEP-0030 §4).
type connected struct{ parts *component.Server }

var _ disco.Provider = connected{}

func (connected) DiscoInfo(context.Context, jid.JID, jid.JID, string) ([]*xmpp.Element, bool, error) {
	return nil, false, nil
}

func (c connected) DiscoItems(_ context.Context, _, to jid.JID, node string, _ *xmpp.Element) (items []*xmpp.Element, found bool, err error) {
	if node != "" || to.Localpart() != "" {
		return nil, false, nil
	}
	for _, name := range c.parts.Connected(to.Domainpart()) {
		items = append(items, xmpp.El("", "item", "jid", name))
	}
	return items, true, nil
}

// Components is how many components are connected.
func (s *Server) Components() (n int) {
	s.mu.Lock()
	domains := s.cfg.Domains
	s.mu.Unlock()
	for _, d := range domains {
		n += len(s.parts.Connected(d.Name))
	}
	return n
}
