package mam

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/stanza"
)

func parsed(xml string) (Query, error) {
	s, err := stream.Parse([]byte("<iq type='set' id='1'>"+xml+"</iq>"), stream.DefaultLimits())
	if err != nil {
		return Query{}, fmt.Errorf("scan: %w", err)
	}
	var r request
	p, _ := s.Payload()
	if err := p.Decode(&r); err != nil {
		return Query{}, xmpp.ErrBadRequest
	}
	m := &Module{cfg: DefaultConfig()}
	return m.parse(&r, true)
}

// XEP-0313 §4.1 and XEP-0059: every value that is not what it should be.
func TestBadQueries(t *testing.T) {
	field := func(name string, values ...string) string {
		b := "<field var='" + name + "'>"
		for _, v := range values {
			b += "<value>" + v + "</value>"
		}
		return b + "</field>"
	}
	typed := field("FORM_TYPE", NS)
	many := make([]string, DefaultConfig().IDs+1)
	for _, c := range []struct {
		what, form, set string
		want            stanza.Condition
	}{
		{"no FORM_TYPE", field("with", "juliet@capulet.lit"), "", stanza.BadRequest},
		{"another FORM_TYPE", field("FORM_TYPE", "urn:xmpp:mam:1"), "", stanza.BadRequest},
		{"FORM_TYPE twice", typed + typed, "", stanza.BadRequest},
		{"with is no JID", typed + field("with", "@"), "", stanza.BadRequest},
		{"with is empty", typed + field("with", ""), "", stanza.BadRequest},
		{"with has no value", typed + field("with"), "", stanza.BadRequest},
		{"two JIDs", typed + field("with", "a@b", "c@d"), "", stanza.BadRequest},
		{"start is no time", typed + field("start", "yesterday"), "", stanza.BadRequest},
		{"start without zone", typed + field("start", "2010-06-07T00:00:00"), "", stanza.BadRequest},
		{"start in year 0", typed + field("start", "0000-06-07T00:00:00Z"), "", stanza.BadRequest},
		{"end is a date", typed + field("end", "2010-06-07"), "", stanza.BadRequest},
		{"include-groupchat is no boolean", typed + field("include-groupchat", "maybe"), "", stanza.BadRequest},
		{"an unknown field", typed + field("{urn:example}x", "1"), "", stanza.FeatureNotImplemented},
		{"too many ids", typed + field("ids", many...), "", stanza.PolicyViolation},
		{"max is no number", "", "<max>many</max>", stanza.BadRequest},
		{"max is negative", "", "<max>-1</max>", stanza.BadRequest},
		{"max is huge", "", "<max>99999999999999999999</max>", stanza.BadRequest},
		{"max is empty", "", "<max/>", stanza.BadRequest},
		{"a page by index", "", "<index>7</index>", stanza.FeatureNotImplemented},
	} {
		t.Run(c.what, func(t *testing.T) {
			xml := "<query xmlns='" + NS + "'>"
			if c.form != "" {
				xml += "<x xmlns='jabber:x:data' type='submit'>" + c.form + "</x>"
			}
			if c.set != "" {
				xml += "<set xmlns='http://jabber.org/protocol/rsm'>" + c.set + "</set>"
			}
			_, err := parsed(xml + "</query>")
			var se stanza.Error
			if !errors.As(err, &se) || se.Condition != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	for _, typ := range []string{"form", "cancel", ""} {
		if _, err := parsed("<query xmlns='" + NS + "'><x xmlns='jabber:x:data' type='" + typ + "'>" + typed + "</x></query>"); !errors.Is(err, xmpp.ErrBadRequest) {
			t.Errorf("form of type %q: %v", typ, err)
		}
	}
	if _, err := parsed("<query xmlns='" + NS + "' node='x'/>"); !errors.Is(err, xmpp.ErrItemNotFound) {
		t.Errorf("a node: %v", err)
	}
}

// No request makes a query that the store may not be asked.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"", "<set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before/></set><flip-page/>",
		"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='start'><value>2010-06-07T00:00:00.5+02:00</value></field></x>",
		"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='ids'/></x>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, inner string) {
		q, err := parsed("<query xmlns='" + NS + "'>" + inner + "</query>")
		if err != nil {
			var se stanza.Error
			if !errors.As(err, &se) && !strings.HasPrefix(err.Error(), "scan: ") {
				t.Fatal(err)
			}
			return
		}
		cfg := DefaultConfig()
		if q.Max < 0 || q.Max > cfg.MaxPage || q.Count > mostCounted || len(q.IDs) > cfg.IDs || q.Bytes != cfg.PageBytes || len(q.After)+len(q.Before) > 4 {
			t.Fatalf("%+v", q)
		}
	})
}
