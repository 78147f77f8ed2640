package disco

import (
	"crypto"

	"balcony/xmpp"
	"balcony/xmpp/caps"
)

// caps is the stream feature of XEP-0115 §6.3.
func (m *Module) caps(domain string) *xmpp.Element {
	return xmpp.El(NSCaps, "c", "hash", "sha-1", "node", m.Node, "ver", m.ver(domain))
}

// capability is a verification string and the forms, as XML, of the answer that it is of: all else in the answer never changes.
type capability struct{ forms, ver string }

// ver is the verification string of a domain's answer. Each login asks for it.
func (m *Module) ver(domain string) string {
	var forms []byte
	for _, f := range m.Forms {
		if e := f(domain); e != nil {
			forms = e.AppendTo(forms, NSInfo)
		}
	}
	if c, ok := m.vers.Load(domain); ok && c.(capability).forms == string(forms) {
		return c.(capability).ver
	}
	v := ver(m.server(domain))
	m.vers.Store(domain, capability{string(forms), v})
	return v
}

// ver is the verification string of an answer of ours, with SHA-1, which XEP-0115 §8.1 makes mandatory. It has nothing twice.
func ver(query *xmpp.Element) string {
	v, _ := caps.Ver(query, crypto.SHA1)
	return v
}
