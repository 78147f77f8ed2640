package stream

import (
	streamerr "mellium.im/xmpp/stream"

	"balcony/xmpp"
)

// NSDialback is the namespace of XEP-0220 §2.4.1, whose prefix stands on the header of streams between servers.
const NSDialback = "jabber:server:dialback"

// CloseTag ends a stream whose header AppendHeader wrote (RFC 6120 §4.4).
const CloseTag = "</stream:stream>"

// AppendHeader appends the XML declaration and the opening tag of a stream (RFC 6120 §4.7). Its prefix is always "stream" (§4.8.5);
// h.Content is the default namespace, and empty attributes are left out. Between servers the prefix "db" is declared (XEP-0220 §2.4.1).
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, "<?xml version='1.0'?><stream:stream xmlns='"...)
	b = xmpp.AppendEscaped(b, h.Content)
	b = append(b, "' xmlns:stream='"+xmpp.NSStream+"'"...)
	if h.Content == xmpp.NSServer {
		b = append(b, " xmlns:db='"+NSDialback+"'"...)
	}
	for _, a := range [...]xmpp.Attr{
		{Name: "id", Value: h.ID}, {Name: "from", Value: h.From}, {Name: "to", Value: h.To},
		{Name: "version", Value: h.Version}, {Name: "xml:lang", Value: h.Lang},
	} {
		if a.Value == "" {
			continue
		}
		b = append(append(append(b, ' '), a.Name...), "='"...)
		b = append(xmpp.AppendEscaped(b, a.Value), '\'')
	}
	return append(b, '>')
}

// AppendError appends <stream:error/> (RFC 6120 §4.9.2). detail is the application-specific condition (§4.9.4) and may be nil; one
// that was put into e with ApplicationError is not written. An e without a condition is undefined-condition (§4.9.3.21).
func AppendError(b []byte, e streamerr.Error, detail *xmpp.Element) []byte {
	condition := e.Err
	if condition == "" {
		condition = streamerr.UndefinedCondition.Err
	}
	b = append(b, "<stream:error>"...)
	b = xmpp.El(xmpp.NSStreams, condition).Say(e.Content).AppendTo(b, "")
	for _, t := range e.Text {
		b = xmpp.El(xmpp.NSStreams, "text", "xml:lang", t.Lang).Say(t.Value).AppendTo(b, "")
	}
	if detail != nil {
		b = detail.AppendTo(b, "")
	}
	return append(b, "</stream:error>"...)
}

// AppendFeatures appends <stream:features/> (RFC 6120 §4.3.2) with the features in order; nil ones are left out.
func AppendFeatures(b []byte, features ...*xmpp.Element) []byte {
	start := len(b)
	b = append(b, "<stream:features>"...)
	empty := len(b)
	for _, f := range features {
		if f != nil {
			b = f.AppendTo(b, "")
		}
	}
	if len(b) == empty {
		return append(b[:start], "<stream:features/>"...)
	}
	return append(b, "</stream:features>"...)
}
