package web

import (
	"encoding/json"
	"encoding/xml"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// The link relations of XEP-0156 §4.1 and XEP-0487 §2.1.
const (
	relWebSocket = "urn:xmpp:alt-connections:websocket"
	relBOSH      = "urn:xmpp:alt-connections:xbosh"
	relTLS       = "urn:xmpp:alt-connections:tls"
	relServerTLS = "urn:xmpp:alt-connections:s2s-tls"
)

// ttl is for how long discovery may be kept, in seconds. chosen: an address that changes is known everywhere after an hour.
const ttl = 3600

// Site is how clients reach a domain.
type Site struct {
	Domain string
	// URL is the public address of this server's HTTP, without a slash at its end; empty for the one at which the request came.
	URL string
	// Addresses are the public IP addresses; without them there is nothing for XEP-0487 to tell.
	Addresses []netip.Addr
}

// Ports are the public ports of direct TLS, 0 for none.
type Ports struct{ HTTPS, ClientTLS, ServerTLS int }

// Sites tells about the domains of the server.
type Sites struct {
	// Of is the site of a domain, or the one that is meant by a host name which is none; ok is false when it is nobody's.
	Of func(host string) (site Site, ok bool)
	// Ports are asked for at each request.
	Ports func() Ports
}

// HandleDiscovery adds /.well-known/host-meta and its JSON (XEP-0156, XEP-0487).
func (s *Server) HandleDiscovery(sites Sites) {
	s.sites = sites
	s.public.HandleFunc("GET /.well-known/host-meta", func(w http.ResponseWriter, r *http.Request) { s.hostMeta(w, r, writeXRD) })
	for _, path := range []string{"host-meta.json", "host-meta-2.json"} { // the second is what earlier versions of XEP-0487 asked for
		s.public.HandleFunc("GET /.well-known/"+path, func(w http.ResponseWriter, r *http.Request) { s.hostMeta(w, r, writeJRD) })
	}
}

// link is a Link of RFC 6415 with the fields of XEP-0487 §2.1.
type link struct {
	Rel      string       `json:"rel"`
	Href     string       `json:"href,omitempty"`
	Port     int          `json:"port,omitempty"`
	IPs      []netip.Addr `json:"ips,omitempty"`
	Priority *int         `json:"priority,omitempty"`
	Weight   *int         `json:"weight,omitempty"`
	SNI      string       `json:"sni,omitempty"`
}

// meta is a JRD document.
type meta struct {
	XMPP *struct {
		TTL int `json:"ttl"`
	} `json:"xmpp,omitempty"`
	Links []link `json:"links"`
}

func (s *Server) hostMeta(w http.ResponseWriter, r *http.Request, write func(http.ResponseWriter, meta)) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	site, ok := s.sites.Of(host)
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*") // XEP-0156 §5: pages anywhere may read it; it is the same for everybody
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(ttl))
	write(w, s.links(site, s.base(site, r, host)))
}

// base is the address that the links begin with. XEP-0156 §4.2: https and wss only, unless the operator says otherwise.
func (s *Server) base(site Site, r *http.Request, host string) string {
	if site.URL != "" {
		return site.URL
	}
	if c := s.client(r); r.TLS != nil || c.proxied && c.secure {
		return "https://" + r.Host
	}
	if port := s.sites.Ports().HTTPS; port != 0 {
		return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
	}
	return ""
}

func (s *Server) links(site Site, base string) meta {
	var m meta
	m.Links = []link{}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return m
	}
	// "http" becomes "ws", "https" "wss".
	m.Links = append(m.Links,
		link{Rel: relWebSocket, Href: "ws" + strings.TrimPrefix(base, "http") + "/xmpp-websocket"},
		link{Rel: relBOSH, Href: base + "/http-bind"})
	if len(site.Addresses) == 0 {
		return m
	}
	// XEP-0487 §2.1: a client that finds this asks nobody else, so it has to have everything.
	m.XMPP = &struct {
		TTL int `json:"ttl"`
	}{ttl}
	ports := s.sites.Ports()
	for i := range m.Links {
		m.Links[i].SNI = u.Hostname()
	}
	if ports.ClientTLS != 0 {
		m.Links = append([]link{{Rel: relTLS, Port: ports.ClientTLS, SNI: site.Domain}}, m.Links...)
	}
	if ports.ServerTLS != 0 {
		m.Links = append(m.Links, link{Rel: relServerTLS, Port: ports.ServerTLS, SNI: site.Domain})
	}
	for i := range m.Links {
		priority, weight := 10*(i+1), 0
		m.Links[i].Priority, m.Links[i].Weight, m.Links[i].IPs = &priority, &weight, site.Addresses
	}
	return m
}

func writeJRD(w http.ResponseWriter, m meta) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(m) // the asker may be gone
}

// writeXRD is RFC 6415 §2: what XEP-0487 adds has no place in it.
func writeXRD(w http.ResponseWriter, m meta) {
	type element struct {
		Rel  string `xml:"rel,attr"`
		Href string `xml:"href,attr"`
	}
	var doc struct {
		XMLName xml.Name  `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 XRD"`
		Links   []element `xml:"Link"`
	}
	for _, l := range m.Links {
		if l.Href != "" {
			doc.Links = append(doc.Links, element{l.Rel, l.Href})
		}
	}
	w.Header().Set("Content-Type", "application/xrd+xml; charset=utf-8")
	_, _ = w.Write([]byte(xml.Header))
	_ = xml.NewEncoder(w).Encode(doc)
}
