// Package relay is the floor that the benchmark compares with: a program that finds where each stanza ends and copies it to the
// connection of the account in its to attribute, or to all of them when it is the hub's presence or publication, and does nothing else that a server does.
// It believes every account and password.
package relay

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"net"
	"sync"

	"balcony/cmd/balcony-bench/client"
)

// Serve accepts connections until the listener is closed.
func Serve(l net.Listener, config *tls.Config) error {
	r := &relay{config: config}
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := r.serve(conn); err != nil && !errors.Is(err, client.ErrStreamClosed) {
				log.Printf("connection ended: %v", err)
			}
		}()
	}
}

type relay struct {
	config *tls.Config
	conns  sync.Map // localpart (string) -> *tls.Conn; its Write is safe for concurrent use
}

const header = "<?xml version='1.0'?><stream:stream from='localhost' id='1' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

// open answers a stream header.
func open(conn net.Conn, f *client.Framer, features string) error {
	if _, err := f.Header(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(conn, "%s<stream:features>%s</stream:features>", header, features)
	return err
}

func answer(conn net.Conn, f *client.Framer, text string) ([]byte, error) {
	frame, err := f.Next()
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte(text))
	return frame, err
}

func (r *relay) serve(raw net.Conn) error {
	f := client.NewFramer(raw, 2048)
	if err := open(raw, f, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"); err != nil {
		return err
	}
	if _, err := answer(raw, f, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"); err != nil {
		return err
	}
	conn := tls.Server(raw, r.config)
	f.Reset(conn)
	if err := open(conn, f, "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"); err != nil {
		return err
	}
	auth, err := answer(conn, f, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
	if err != nil {
		return err
	}
	text, err := base64.StdEncoding.DecodeString(string(client.Between(auth, ">", "<")))
	if err != nil {
		return err
	}
	account := string(client.Between(text, "\x00", "\x00"))
	f.Reset(conn)
	if err := open(conn, f, "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"); err != nil {
		return err
	}
	r.conns.Store(account, conn)
	defer r.conns.CompareAndDelete(account, conn)
	return r.forward(conn, f, account)
}

// forward handles the stanzas of one connection.
func (r *relay) forward(conn *tls.Conn, f *client.Framer, account string) error {
	full := ""
	for {
		st, err := f.Next()
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(st, []byte("<message")):
			local, _, _ := bytes.Cut(client.Attr(st, "to"), []byte("@"))
			if to, ok := r.conns.Load(string(local)); ok {
				if _, err := to.(*tls.Conn).Write(st); err != nil {
					log.Printf("message lost: %v", err)
				}
			}
		case account == client.Hub && bytes.HasPrefix(st, []byte("<presence>")):
			r.spread(account, append([]byte("<presence from='"+full+"'"), st[len("<presence"):]...))
		case account == client.Hub && bytes.Contains(st, []byte("<publish ")):
			r.spread(account, fmt.Appendf(nil, "<message from='%s@localhost' type='headline'><event xmlns='http://jabber.org/protocol/pubsub#event'><items><item%s</items></event></message>",
				account, client.Between(st, "<item", "</publish>")))
			_, err = fmt.Fprintf(conn, "<iq type='result' id='%s'/>", client.Attr(st, "id"))
		case account == client.Hub && bytes.Contains(st, []byte("jabber:iq:roster")):
			var b bytes.Buffer
			r.conns.Range(func(any, any) bool {
				b.WriteString("<item subscription='from'/>")
				return true
			})
			_, err = fmt.Fprintf(conn, "<iq type='result' id='%s'><query xmlns='jabber:iq:roster'>%s</query></iq>", client.Attr(st, "id"), b.Bytes())
		case bytes.HasPrefix(st, []byte("<presence")):
			_, err = fmt.Fprintf(conn, "<presence from='%s' to='%[1]s'/>", full)
		case bytes.HasPrefix(st, []byte("<iq")):
			payload := ""
			if resource := client.Between(st, "<resource>", "</resource>"); resource != nil {
				full = account + "@localhost/" + string(resource)
				payload = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>" + full + "</jid></bind>"
			}
			_, err = fmt.Fprintf(conn, "<iq type='result' id='%s'>%s</iq>", client.Attr(st, "id"), payload)
		}
		if err != nil {
			return err
		}
	}
}

// spread copies a stanza to all but its sender.
func (r *relay) spread(sender string, st []byte) {
	r.conns.Range(func(account, to any) bool {
		if account != sender {
			if _, err := to.(*tls.Conn).Write(st); err != nil {
				log.Printf("stanza lost: %v", err)
			}
		}
		return true
	})
}
