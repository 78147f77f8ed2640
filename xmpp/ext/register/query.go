package register

import (
	"encoding/xml"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
)

// query is the payload of a request.
type query struct {
	Username *string    `xml:"jabber:iq:register username"`
	Password *string    `xml:"jabber:iq:register password"`
	Remove   *struct{}  `xml:"jabber:iq:register remove"`
	Form     *form.Data `xml:"jabber:x:data x"`
	Any      []struct {
		XMLName xml.Name
	} `xml:",any"` // whatever else there is

	children int
}

// parse reads the payload. An error comes with what was read until then.
func parse(s *xmpp.Stanza) (query, error) {
	var q query
	p, _ := s.Payload()
	if err := p.Decode(&q); err != nil {
		return q, xmpp.ErrBadRequest
	}
	q.children = len(q.Any)
	for _, there := range []bool{q.Username != nil, q.Password != nil, q.Remove != nil, q.Form != nil} {
		if there {
			q.children++
		}
	}
	if q.Form != nil {
		// XEP-0077 §4: the form takes precedence, and says what it is. The form of a cancellation is none that this server gives out.
		switch t := first(q.Form, "FORM_TYPE"); t {
		case "", NS, NS + ":changepassword":
		default:
			return q, xmpp.ErrBadRequest
		}
	}
	return q, nil
}

// values are the username and the password, empty when absent.
func (q query) values() (username, password string) {
	if q.Form != nil {
		return first(q.Form, "username"), first(q.Form, "password")
	}
	if q.Username != nil {
		username = *q.Username
	}
	if q.Password != nil {
		password = *q.Password
	}
	return username, password
}

func first(f *form.Data, field string) string {
	v, _ := f.Raw(field)
	if len(v) == 0 {
		return ""
	}
	return v[0]
}
