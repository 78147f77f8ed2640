// Package s2stest gives tests of federation what the rest of the world would: a name server and a certificate authority.
package s2stest

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// DNS is a name server on loopback that knows what the test tells it, and that nothing else exists.
type DNS struct {
	// Addr is its host:port, for UDP and TCP.
	Addr string

	mu      sync.Mutex
	records map[string][]dns.RR // guarded by mu, by lower-case name
	silent  map[string]bool     // guarded by mu: names that are not answered
	asked   map[string]int      // guarded by mu
}

// NewDNS starts a name server on a port of its own, or at addr. It ends with the test.
func NewDNS(t testing.TB, addr ...string) *DNS {
	t.Helper()
	d := &DNS{records: make(map[string][]dns.RR), silent: make(map[string]bool), asked: make(map[string]int)}
	at := "127.0.0.1:0"
	if len(addr) > 0 {
		at = addr[0]
	}
	var packets net.PacketConn
	var l net.Listener
	var err error
	for range 20 { // the port must be free for both
		if packets, err = net.ListenPacket("udp", at); err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", packets.LocalAddr().String()); err == nil {
			break
		}
		_ = packets.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	d.Addr = packets.LocalAddr().String()
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: d}, {Listener: l, Handler: d}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	return d
}

// ServeDNS answers a question.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	d.mu.Lock()
	silent := false
	for _, question := range q.Question {
		name := strings.ToLower(question.Name)
		d.asked[name]++
		silent = silent || d.silent[name]
		list, known := d.records[name]
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		for _, rr := range list {
			if rr.Header().Rrtype == question.Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	d.mu.Unlock()
	if !silent {
		_ = w.WriteMsg(m)
	}
}

// SRV adds a service record: of "xmpp-server" or "xmpps-server" of a domain.
func (d *DNS) SRV(domain, service, target string, port, priority, weight int) {
	name := "_" + service + "._tcp." + domain
	d.add(&dns.SRV{Hdr: header(name, dns.TypeSRV), Target: dns.Fqdn(target), Port: uint16(port), Priority: uint16(priority), Weight: uint16(weight)})
}

// Host adds an address of a host.
func (d *DNS) Host(name, address string) {
	a := netip.MustParseAddr(address)
	if a.Is4() {
		d.add(&dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
	} else {
		d.add(&dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
	}
}

// Server adds the records of a domain whose server listens for STARTTLS at addr.
func (d *DNS) Server(domain string, addr net.Addr) {
	tcp := addr.(*net.TCPAddr)
	d.SRV(domain, "xmpp-server", "xmpp."+domain, tcp.Port, 10, 0)
	d.Host("xmpp."+domain, tcp.AddrPort().Addr().Unmap().String())
}

// Silent makes the server say nothing when it is asked for a name.
func (d *DNS) Silent(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent[strings.ToLower(dns.Fqdn(name))] = true
}

// Asked is how many questions about a name there were.
func (d *DNS) Asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[strings.ToLower(dns.Fqdn(name))]
}

// Remove forgets the records of a name.
func (d *DNS) Remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.records, strings.ToLower(dns.Fqdn(name)))
}

func header(name string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: typ, Class: dns.ClassINET, Ttl: 1}
}

func (d *DNS) add(rr dns.RR) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strings.ToLower(rr.Header().Name)
	d.records[name] = append(d.records[name], rr)
}
