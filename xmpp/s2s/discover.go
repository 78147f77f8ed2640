package s2s

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"balcony/xmpp"
)

// Ports of servers that have no SRV records (RFC 6120 §3.2.2).
const defaultPort = 5269

// target is where a server may be reached: a host and port that DNS or the configuration gave.
type target struct {
	host     string // a name in its ASCII form, or an address
	port     uint16
	direct   bool // TLS from the first byte (XEP-0368)
	priority uint16
	weight   uint16
	source   string // for people: which record said so
}

func (t target) String() string {
	how := "STARTTLS"
	if t.direct {
		how = "direct TLS"
	}
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) + " with " + how
}

var (
	errNoService = errors.New("the domain says that it has no XMPP server")
	errNoAddress = errors.New("no address was found")
)

// maxTargets bounds what one domain's records can make this server try. chosen: large services have fewer.
const maxTargets = 16

// discover finds the targets of a domain in the order in which they are to be tried: RFC 6120 §3.2, XEP-0368 §3.
func (s *Server) discover(ctx context.Context, cfg *Config, domain string) ([]target, error) {
	if list := cfg.Policy.route(domain); len(list) > 0 {
		targets := make([]target, 0, len(list))
		for i, a := range list {
			host, port, err := net.SplitHostPort(a.HostPort)
			if err != nil {
				return nil, err
			}
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return nil, err
			}
			targets = append(targets, target{host: host, port: uint16(n), direct: a.DirectTLS, priority: uint16(i), source: "configuration"})
		}
		return targets, nil
	}
	name := xmpp.ASCII(domain)
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil { // RFC 6120 §3.2.3: an address needs no resolution
		return []target{{host: strings.Trim(name, "[]"), port: defaultPort, source: "address"}}, nil
	}
	type answer struct {
		records []*net.SRV
		err     error
	}
	resolver := s.resolver(cfg)
	services := [...]string{"xmpp-server", "xmpps-server"}
	var answers [len(services)]answer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, answers[1].records, answers[1].err = resolver.LookupSRV(ctx, services[1], "tcp", name+".")
	}()
	_, answers[0].records, answers[0].err = resolver.LookupSRV(ctx, services[0], "tcp", name+".")
	<-done
	var targets []target
	found := false
	var failed error
	for i, a := range answers {
		if dns := (*net.DNSError)(nil); a.err != nil && !(errors.As(a.err, &dns) && dns.IsNotFound) {
			failed = a.err
		}
		for _, r := range a.records {
			found = true
			if host := strings.TrimSuffix(r.Target, "."); host != "" { // RFC 2782: "." means that the service is not there
				targets = append(targets, target{host: host, port: r.Port, direct: i == 1, priority: r.Priority, weight: r.Weight,
					source: "SRV _" + services[i]})
			}
		}
	}
	switch {
	case len(targets) > 0:
		order(targets)
		return targets[:min(len(targets), maxTargets)], nil
	case found:
		return nil, errNoService // XEP-0368 §5: no fallback
	case failed != nil:
		return nil, failed
	}
	return []target{{host: name, port: defaultPort, source: "no SRV record"}}, nil // RFC 6120 §3.2.2
}

// resolver asks the configured server, or the system's.
func (s *Server) resolver(cfg *Config) *net.Resolver {
	if cfg.DNS == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, cfg.DNS)
	}}
}

// order sorts targets by priority and, among equal ones, at random with the probability that their weights give (RFC 2782).
func order(targets []target) {
	slices.SortStableFunc(targets, func(a, b target) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.weight, b.weight))
	})
	for lo := 0; lo < len(targets); {
		hi := lo + 1
		for hi < len(targets) && targets[hi].priority == targets[lo].priority {
			hi++
		}
		group := targets[lo:hi]
		for len(group) > 1 {
			sum := 0
			for _, t := range group {
				sum += int(t.weight)
			}
			n, i := rand.IntN(sum+1), 0
			for run := int(group[0].weight); run < n; run += int(group[i].weight) {
				i++
			}
			chosen := group[i]
			copy(group[1:i+1], group[:i])
			group[0] = chosen
			group = group[1:]
		}
		lo = hi
	}
}

// endpoint is one address to connect to.
type endpoint struct {
	target
	addr netip.AddrPort
}

// resolutionDelay is how long an IPv4 address waits for those of IPv6: RFC 8305 §8.
const resolutionDelay = 50 * time.Millisecond

// attemptDelay is the time between two attempts to connect: RFC 8305 §8.
const attemptDelay = 250 * time.Millisecond

// maxAddresses bounds the addresses of one host. chosen: more are for other clients.
const maxAddresses = 8

// resolve finds the endpoints of a group of targets, in the order of RFC 8305 §4 and XEP-0495 §4.3: families take turns, IPv6 first, and
// within each the order of the targets holds.
func (s *Server) resolve(ctx context.Context, cfg *Config, group []target) ([]endpoint, error) {
	type found struct {
		index int
		v6    bool
		list  []netip.Addr
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resolver := s.resolver(cfg)
	answers := make(chan found, 2*len(group))
	want := 0
	for i, t := range group {
		if a, err := netip.ParseAddr(t.host); err == nil {
			answers <- found{index: i, v6: a.Is6(), list: []netip.Addr{a}}
			want++
			continue
		}
		for _, network := range []string{"ip6", "ip4"} {
			want++
			go func() {
				list, err := resolver.LookupNetIP(ctx, network, t.host+".")
				answers <- found{i, network == "ip6", list, err}
			}()
		}
	}
	six, four := make([][]netip.Addr, len(group)), make([][]netip.Addr, len(group))
	var failed error
	var late <-chan time.Time // begins with the first IPv4 address: XEP-0495 §4.2
	for n := 0; n < want; n++ {
		select {
		case f := <-answers:
			if f.err != nil {
				if dns := (*net.DNSError)(nil); failed == nil || !(errors.As(f.err, &dns) && dns.IsNotFound) {
					failed = f.err
				}
				continue
			}
			list := f.list[:min(len(f.list), maxAddresses)]
			if f.v6 {
				six[f.index] = list
				continue
			}
			four[f.index] = list
			if late == nil && len(list) > 0 && n+1 < want {
				timer := time.NewTimer(resolutionDelay)
				defer timer.Stop()
				late = timer.C
			}
		case <-late:
			n = want
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var lists [2][]endpoint
	for family, all := range [...][][]netip.Addr{six, four} {
		for i, list := range all {
			for _, a := range list {
				lists[family] = append(lists[family], endpoint{group[i], netip.AddrPortFrom(a.Unmap(), group[i].port)})
			}
		}
	}
	var endpoints []endpoint
	for i := range max(len(lists[0]), len(lists[1])) {
		for _, l := range lists {
			if i < len(l) {
				endpoints = append(endpoints, l[i])
			}
		}
	}
	if len(endpoints) == 0 {
		if failed == nil {
			failed = errNoAddress
		}
		return nil, failed
	}
	return endpoints, nil
}

// race connects to the first endpoint that answers: RFC 8305 §5. It returns the endpoints that were not decided, for another try.
func race(ctx context.Context, endpoints []endpoint) (c *net.TCPConn, at endpoint, rest []endpoint, err error) {
	type result struct {
		conn net.Conn
		at   int
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	started, running := 0, 0
	start := func() {
		i := started
		started++
		running++
		go func() {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", endpoints[i].addr.String())
			results <- result{conn, i, err}
		}()
	}
	failed := make([]bool, len(endpoints))
	next := time.NewTicker(attemptDelay)
	defer next.Stop()
	start()
	var errs []error
	won := -1
	for running > 0 {
		select {
		case r := <-results:
			running--
			switch {
			case r.err != nil && won < 0:
				failed[r.at] = true
				errs = append(errs, r.err)
			case r.err != nil:
			case won >= 0:
				_ = r.conn.Close()
			default:
				won, c = r.at, r.conn.(*net.TCPConn)
				cancel()
			}
			if won < 0 && started < len(endpoints) && ctx.Err() == nil {
				start()
				next.Reset(attemptDelay)
			}
		case <-next.C:
			if won < 0 && started < len(endpoints) && ctx.Err() == nil {
				start()
			}
		}
	}
	if won < 0 {
		return nil, at, nil, errors.Join(errs...)
	}
	for i, e := range endpoints {
		if i != won && !failed[i] {
			rest = append(rest, e)
		}
	}
	return c, endpoints[won], rest, nil
}

// explainDNS is what DNS has said, in words.
func explainDNS(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("%s does not exist in DNS", strings.TrimSuffix(dns.Name, "."))
	case errors.As(err, &dns) && dns.IsTimeout:
		return "the resolver does not answer"
	}
	return err.Error()
}
