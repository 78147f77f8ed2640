package push

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

const (
	maxNode    = 1024    // bytes. chosen: a node is an id or a token; those of Apple and Google have up to 300
	maxOptions = 4 << 10 // bytes. chosen: a secret and a few names
	maxFields  = 20      // chosen: push services ask for one to three
)

// enable: XEP-0357 §5.
func (m *Module) enable(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	r, err := readEnable(s)
	if err != nil {
		return nil, err
	}
	r.Resource = s.From.Resourcepart()
	account := s.From.Bare()
	err = m.store.EnablePush(ctx, account, r)
	m.Forget(account) // also after an error, which may have come after the commit
	return nil, err
}

// disable: XEP-0357 §6. What is not enabled is disabled already.
func (m *Module) disable(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	service, node, err := readTarget(p)
	if err != nil {
		return nil, err
	}
	account := s.From.Bare()
	err = m.store.DisablePush(ctx, account, service, node)
	m.Forget(account)
	return nil, err
}

// readTarget returns the attributes that <enable/> and <disable/> have in common; the jid "MUST" be there.
func readTarget(p xmpp.Child) (service jid.JID, node string, err error) {
	text, node := p.Attr("jid"), p.Attr("node")
	if text == "" {
		return jid.JID{}, "", xmpp.ErrBadRequest
	}
	if len(node) > maxNode {
		return jid.JID{}, "", xmpp.ErrPolicyViolation
	}
	service, err = jid.Parse(text)
	if err != nil {
		return jid.JID{}, "", xmpp.ErrJIDMalformed
	}
	return service, node, nil
}

// readEnable reads an <enable/>. What is in it besides the form of publish-options is for extensions that this server does not know.
func readEnable(s *xmpp.Stanza) (r Registration, err error) {
	p, _ := s.Payload()
	if r.Service, r.Node, err = readTarget(p); err != nil {
		return Registration{}, err
	}
	var request struct {
		Forms []form `xml:"jabber:x:data x"`
	}
	if p.Decode(&request) != nil {
		return Registration{}, xmpp.ErrBadRequest
	}
	for _, f := range request.Forms {
		if f.formType() != nsOptions {
			continue
		}
		if len(f.Fields) > maxFields {
			return Registration{}, xmpp.ErrPolicyViolation
		}
		r.Options = f.element().AppendTo(nil, "")
		if len(r.Options) > maxOptions {
			return Registration{}, xmpp.ErrPolicyViolation
		}
		break
	}
	return r, nil
}

// form is a data form (XEP-0004) as far as it is handed on.
type form struct {
	Fields []field `xml:"jabber:x:data field"`
}

type field struct {
	Var    string   `xml:"var,attr"`
	Type   string   `xml:"type,attr"`
	Values []string `xml:"jabber:x:data value"`
}

// formType: XEP-0068 §3.
func (f form) formType() string {
	for _, f := range f.Fields {
		if f.Var == "FORM_TYPE" && len(f.Values) == 1 {
			return f.Values[0]
		}
	}
	return ""
}

// element is the form as it is submitted: XEP-0004 §3.1 wants its type, which the examples of XEP-0357 lack.
func (f form) element() *xmpp.Element {
	x := xmpp.El(nsForm, "x", "type", "submit")
	for _, f := range f.Fields {
		el := xmpp.El("", "field", "var", f.Var, "type", f.Type)
		for _, v := range f.Values {
			el.Add(xmpp.El("", "value").Say(v))
		}
		x.Add(el)
	}
	return x
}
