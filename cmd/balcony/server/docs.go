package server

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	"balcony/roster"
	"balcony/xmpp"
)

// register registers the modules in order and notes what each added, for Pipeline.
func (s *Server) register() {
	reg := s.router.Registry()
	type count struct {
		name string
		n    func() int
	}
	counts := []count{
		{"Outgoing: every stanza that a local session sends", func() int { return len(reg.OutgoingFilters) }},
		{"Incoming: every stanza to a local account, after its recipients were chosen", func() int { return len(reg.IncomingFilters) }},
		{"Undelivered: every message that no session took", func() int { return len(reg.UndeliveredFilters) }},
		{"Presence: a session's broadcast presence has changed", func() int { return len(reg.PresenceHooks) }},
		{"Bound: a resource is bound", func() int { return len(reg.BoundHooks) }},
		{"Ended: a session has ended", func() int { return len(reg.EndedHooks) }},
		{"Deleted: an account is about to be deleted", func() int { return len(reg.DeletedHooks) }},
	}
	lines := make([][]string, len(counts))
	for _, m := range s.modules.list {
		before := make([]int, len(counts))
		for i, c := range counts {
			before[i] = c.n()
		}
		m.Register(reg)
		for i, c := range counts {
			if c.n() > before[i] {
				lines[i] = append(lines[i], "\t"+moduleName(m)+"\n")
			}
		}
	}
	var b strings.Builder
	for i, c := range counts {
		b.WriteString(c.name + "\n" + strings.Join(lines[i], ""))
	}
	s.pipeline = b.String()
}

func moduleName(m xmpp.Module) string {
	t := reflect.TypeOf(m)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := t.PkgPath()
	return p[strings.LastIndexByte(p, '/')+1:]
}

// Pipeline is the order in which modules see stanzas: docs/pipeline.txt.
func (s *Server) Pipeline() string { return s.pipeline }

// core is what is implemented outside of modules.
var core = []xmpp.Protocol{
	{RFC: 4616, Status: xmpp.Complete, Note: "SASL PLAIN, over TLS only (`xmpp/auth`)"},
	{RFC: 5802, Status: xmpp.Complete, Note: "SCRAM-SHA-1 and -PLUS (`xmpp/auth`)"},
	{RFC: 5929, Status: xmpp.Partial, Note: "tls-server-end-point, and tls-unique on TLS 1.2 (`xmpp/auth`)"},
	{RFC: 6120, Status: xmpp.Complete, Note: "streams with clients and servers, SASL, binding, stanzas (`xmpp/stream`, `xmpp/c2s`, `xmpp/s2s`, `xmpp/router`)"},
	{RFC: 6125, Status: xmpp.Complete, Note: "DNS-ID and SRV-ID of other servers (`xmpp/s2s`)"},
	{RFC: 6121, Status: xmpp.Complete, Note: "rosters and presence (`roster`), delivery (`xmpp/router`)"},
	{RFC: 7395, Status: xmpp.Complete, Note: "WebSocket (`xmpp/web`)"},
	{RFC: 7590, Status: xmpp.Complete, Note: "TLS 1.2 and 1.3 only (`cmd/balcony/certs`)"},
	{RFC: 7622, Status: xmpp.Complete, Note: "addresses, by mellium.im/xmpp/jid"},
	{RFC: 7677, Status: xmpp.Complete, Note: "SCRAM-SHA-256 and -PLUS; SCRAM-SHA-512 likewise (`xmpp/auth`)"},
	{RFC: 9266, Status: xmpp.Complete, Note: "tls-exporter (`xmpp/auth`)"},
	{XEP: 86, Version: "1.0", Status: xmpp.Partial, Note: "the legacy code of each stanza error is sent (`xmpp`)"},
	{XEP: 114, Version: "1.6", Status: xmpp.Complete, Note: "the accept method (`xmpp/component`)"},
	{XEP: 156, Version: "1.4.0", Status: xmpp.Complete, Note: "host-meta in both formats (`xmpp/web`)"},
	{XEP: 178, Version: "1.2", Status: xmpp.Partial, Note: "between servers (`xmpp/s2s`); clients do not log in with certificates"},
	{XEP: 185, Version: "1.0", Status: xmpp.Complete, Note: "(`xmpp/s2s`)"},
	{XEP: 198, Version: "1.6.3", Status: xmpp.Complete, Note: "acknowledgement and resumption, also after a restart of the server (`xmpp/c2s`), and between servers (`xmpp/s2s`); no location, as one server is all there is"},
	{XEP: 220, Version: "1.1.1", Status: xmpp.Complete, Note: "over TLS only; own streams carry one pair of domains each (`xmpp/s2s`)"},
	{XEP: 227, Version: "1.1", Status: xmpp.Complete, Note: "`balcony user export` and `import` (`cmd/balcony/pie`); of privacy lists only what blocks"},
	{XEP: 288, Version: "1.0.1", Status: xmpp.Complete, Note: "(`xmpp/s2s`)"},
	{XEP: 368, Version: "1.1.0", Status: xmpp.Complete, Note: "(`xmpp/c2s`, `xmpp/s2s`), for clients on the https port too (`xmpp/web`)"},
	{XEP: 124, Version: "1.11.2", Status: xmpp.Complete, Note: "BOSH (`xmpp/web`); one stream a session, no script syntax, no compression"},
	{XEP: 206, Version: "1.4", Status: xmpp.Complete, Note: "XMPP over BOSH (`xmpp/web`)"},
	{XEP: 438, Version: "0.2.0", Status: xmpp.Complete, Note: "only SCRAM verifiers are stored (`xmpp/auth`)"},
	{XEP: 352, Version: "1.0.0", Status: xmpp.Complete, Note: "(`xmpp/c2s`)"},
	{XEP: 386, Version: "1.1.0", Status: xmpp.Complete, Note: "with stream management, client state, carbons and archive metadata (`xmpp/c2s`)"},
	{XEP: 388, Version: "1.0.4", Status: xmpp.Complete, Note: "(`xmpp/c2s`, `xmpp/auth`)"},
	{XEP: 440, Version: "1.0.0", Status: xmpp.Complete, Note: "(`xmpp/c2s`)"},
	{RFC: 8305, Status: xmpp.Complete, Note: "to other servers (`xmpp/s2s`)"},
	{XEP: 495, Version: "0.1.0", Status: xmpp.Complete, Note: "to other servers (`xmpp/s2s`)"},
	{XEP: 474, Version: "0.5.0", Status: xmpp.Complete, Note: "(`xmpp/auth`)"},
	{XEP: 480, Version: "0.2.0", Status: xmpp.Complete, Note: "(`xmpp/auth`, `xmpp/c2s`)"},
	{XEP: 484, Version: "0.2.0", Status: xmpp.Complete, Note: "no TLS 0-RTT (`xmpp/auth`, `xmpp/c2s`)"},
	{XEP: 487, Version: "0.1.0", Status: xmpp.Complete, Note: "when public addresses are configured (`xmpp/web`)"},
	{XEP: 509, Version: "0.2.0", Status: xmpp.Complete, Note: "(`xmpp/c2s`)"},
	{XEP: 478, Version: "0.2.0", Status: xmpp.Complete, Note: "(`xmpp/c2s`, `xmpp/s2s`)"},
}

// Protocols is docs/protocols.md.
func (s *Server) Protocols() string {
	type row struct {
		p     xmpp.Protocol
		where string
	}
	var rows []row
	for _, p := range core {
		rows = append(rows, row{p: p})
	}
	for _, m := range s.modules.list {
		folder := "xmpp/ext/" + moduleName(m)
		if _, ok := m.(*roster.Module); ok {
			folder = "roster"
		}
		for _, p := range m.Protocol() {
			rows = append(rows, row{p, folder})
		}
	}
	sort.SliceStable(rows, func(i, j int) bool {
		a, b := rows[i].p, rows[j].p
		if (a.RFC != 0) != (b.RFC != 0) {
			return a.RFC != 0
		}
		return a.RFC < b.RFC || a.RFC == b.RFC && a.XEP < b.XEP
	})
	var b strings.Builder
	b.WriteString("<!-- Code generated from Protocol() by make docs. DO NOT EDIT. -->\n\n# Protocols\n\nWhat the server implements, from the modules themselves.\n\n" +
		"| specification | version | status | where | note |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		name := fmt.Sprintf("XEP-%04d", r.p.XEP)
		if r.p.RFC != 0 {
			name = fmt.Sprintf("RFC %d", r.p.RFC)
		}
		where := r.where
		if where != "" {
			where = "`" + where + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, r.p.Version, r.p.Status, where, r.p.Note)
	}
	return b.String()
}
