package load

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"time"

	"balcony/cmd/balcony-bench/client"
)

const (
	tune     = "http://jabber.org/protocol/tune"
	capsNode = "urn:balcony:bench"
	identity = "client/bot//bench<" // XEP-0115 §5.1
)

// capsVer is the verification string of a client that wants to be notified of tunes.
var capsVer = func() string {
	h := sha1.Sum([]byte(identity + "http://jabber.org/protocol/disco#info<" + tune + "+notify<"))
	return base64.StdEncoding.EncodeToString(h[:])
}()

// PEP lets one account publish what it hears (XEP-0163), wait until all its contacts have been notified, and so on. The contacts' presence says in its
// capabilities (XEP-0115) that they want that; it is also sent to the account directly, for servers that look at presence they receive.
func PEP(ctx context.Context, r *Run) ([]Metric, error) {
	all, hub, contacts, err := r.hub(ctx)
	if err != nil {
		return nil, err
	}
	b := newBroadcast(r.Contacts)
	in := read(ctx, all, func(i int, s *client.Session) error {
		for {
			st, err := s.Next()
			if err != nil {
				return err
			}
			if bytes.HasPrefix(st, []byte("<iq")) && bytes.Contains(st, []byte("disco#info")) && string(client.Attr(st, "type")) == "get" {
				if err := s.WriteString(discoInfo(st)); err != nil {
					return err
				}
				continue
			}
			if s == hub || !bytes.HasPrefix(st, []byte("<message")) {
				continue
			}
			if due, ok := stampOf(st, "<title>"); ok {
				b.got(due)
			}
		}
	})
	c := "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='" + capsNode + "' ver='" + capsVer + "'/></presence>"
	for _, s := range contacts {
		if err := s.WriteString("<presence>" + c + "<presence to='" + client.Hub + "@" + r.Dialer.Domain + "'>" + c); err != nil {
			return nil, fmt.Errorf("presence: %w", err)
		}
	}
	publish := []byte("<iq type='set' id='tune'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='" + tune + "'><item id='current'><tune xmlns='" + tune +
		"'><artist>Gerald Finzi</artist><length>255</length><source>Music for Loves Labors Lost</source><title>0000000000000000 Introduction</title><track>1</track></tune></item></publish></pubsub></iq>")
	stamp := publish[bytes.Index(publish, []byte("0000")):][:stampLen]
	update := func(patience time.Duration) error { return b.send(in, hub, publish, stamp, patience) }
	// Until the server knows what all contacts want.
	ready := func() (err error) {
		for start := time.Now(); time.Since(start) <= 30*time.Second && in.ctx.Err() == nil; {
			if err = update(time.Second); err == nil {
				return nil
			}
		}
		return cmp.Or(err, context.Cause(in.ctx))
	}
	return r.broadcasts(in, "notification", ready, update)
}

// discoInfo answers a question for the capabilities.
func discoInfo(st []byte) string {
	node := ""
	if bytes.Contains(st, []byte(capsNode)) {
		node = " node='" + capsNode + "#" + capsVer + "'"
	}
	return "<iq type='result' id='" + string(client.Attr(st, "id")) + "' to='" + string(client.Attr(st, "from")) + "'><query xmlns='http://jabber.org/protocol/disco#info'" + node + ">" +
		"<identity category='client' type='bot' name='bench'/><feature var='http://jabber.org/protocol/disco#info'/><feature var='" + tune + "+notify'/></query></iq>"
}
