package c2s

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/router"
	"balcony/xmpp/stream"

	streamerr "mellium.im/xmpp/stream"
)

const (
	nsSASL2   = "urn:xmpp:sasl:2"         // XEP-0388
	nsBind2   = "urn:xmpp:bind:0"         // XEP-0386
	nsFast    = "urn:xmpp:fast:0"         // XEP-0484
	nsUpgrade = "urn:xmpp:sasl:upgrade:0" // XEP-0480
	nsScramUp = "urn:xmpp:scram-upgrade:0"
	nsIAP     = "urn:xmpp:iap:0" // XEP-0509
)

// request is <authenticate/>: XEP-0388 §2.3, with what may stand in it.
type request struct {
	Mechanism string `xml:"mechanism,attr"`
	Initial   *struct {
		Data string `xml:",chardata"`
	} `xml:"urn:xmpp:sasl:2 initial-response"`
	Agent struct {
		ID       string `xml:"id,attr"`
		Software string `xml:"urn:xmpp:sasl:2 software"`
		Device   string `xml:"urn:xmpp:sasl:2 device"`
	} `xml:"urn:xmpp:sasl:2 user-agent"`
	Resume *struct { // XEP-0198 §9.2
		PrevID string `xml:"previd,attr"`
		H      string `xml:"h,attr"`
	} `xml:"urn:xmpp:sm:3 resume"`
	Bind *struct { // XEP-0386 §3
		Tag    string `xml:"urn:xmpp:bind:0 tag"`
		Enable *struct {
			Resume string `xml:"resume,attr"`
			Max    string `xml:"max,attr"`
		} `xml:"urn:xmpp:sm:3 enable"`
		Inactive *struct{} `xml:"urn:xmpp:csi:0 inactive"`
	} `xml:"urn:xmpp:bind:0 bind"`
	Features []*xmpp.Element `xml:"-"` // what <bind/> asks for, for the modules
	Token    *struct {       // XEP-0484 §3.2
		Mechanism string `xml:"mechanism,attr"`
	} `xml:"urn:xmpp:fast:0 request-token"`
	Fast *struct { // XEP-0484 §3.4
		Count      string `xml:"count,attr"`
		Invalidate string `xml:"invalidate,attr"`
	} `xml:"urn:xmpp:fast:0 fast"`
	Upgrades []string  `xml:"urn:xmpp:sasl:upgrade:0 upgrade"` // XEP-0480 §3
	Version  *struct { // XEP-0509 §2.2
		Value string `xml:"value,attr"`
	} `xml:"urn:xmpp:iap:0 config-version"`
}

// authentication is the stream feature of XEP-0388 §2.1 with what can be done inline.
func (c *conn) authentication(offered, tokens []string) *xmpp.Element {
	el := xmpp.El(nsSASL2, "authentication")
	for _, m := range offered {
		el.Add(xmpp.El("", "mechanism").Say(m))
	}
	fast := xmpp.El(nsFast, "fast") // XEP-0484 §3.1
	for _, m := range tokens {
		fast.Add(xmpp.El("", "mechanism").Say(m))
	}
	features := xmpp.El("", "inline").Add(xmpp.El("", "feature", "var", xmpp.NSSM), xmpp.El("", "feature", "var", nsCSI)) // XEP-0386 §2.1
	for _, f := range c.server.router.Registry().BindFeatures {
		if f.Name != "" {
			features.Add(xmpp.El("", "feature", "var", f.Name))
		}
	}
	inline := xmpp.El("", "inline").Add(xmpp.El(xmpp.NSSM, "sm"), xmpp.El(nsBind2, "bind").Add(features))
	if len(fast.Children) > 0 {
		inline.Add(fast)
	}
	el.Add(inline)
	for _, task := range c.server.auth.UpgradeTasks() {
		el.Add(xmpp.El(nsUpgrade, "upgrade").Say(task)) // XEP-0480 §2
	}
	return el
}

// sasl2 is one authentication with SASL2 (XEP-0388). done is set when the client has authenticated; ready when the stream is bound or
// resumed as well, and otherwise the features were sent.
func (c *conn) sasl2(ctx context.Context, n *stream.Nonza, offered []string) (done, ready bool, err error) {
	r, err := parseRequest(n)
	if err != nil {
		return false, false, c.failure2(ctx, "other", auth.Failure{Condition: "malformed-request"})
	}
	if r.Version != nil && r.Version.Value != c.version {
		return false, false, c.mismatch()
	}
	ex, err := c.exchange2(ctx, r, offered)
	if err != nil || ex == nil {
		return false, false, err
	}
	return c.succeed(ctx, r, ex)
}

// versioned names the features, which a client that knows the name may take for granted the next time: XEP-0509 §2.1. They depend on the
// domain and on the connection, so the name is made of them.
func versioned(features []*xmpp.Element) (named *xmpp.Element, version string) {
	sum := sha256.Sum256(stream.AppendFeatures(nil, features...))
	version = base64.RawURLEncoding.EncodeToString(sum[:12])
	return xmpp.El(nsIAP, "config-version", "scheme", "opaque", "value", version), version
}

// mismatch refuses an authentication that was sent ahead for other features, "without prejudice": XEP-0509 §2.2. Some of them: then they count
// like others.
func (c *conn) mismatch() error {
	if c.unbound < maxMismatches {
		c.unbound++
	}
	c.server.metrics.auth.WithLabelValues("other", "config-version-mismatch").Inc()
	return c.send(xmpp.El(nsSASL2, "failure").Add(xmpp.El(nsSASL, "aborted"), xmpp.El(nsIAP, "config-version-mismatch")).AppendTo(nil, ""))
}

// maxMismatches is how many authentications of a stream may name other features. chosen: a client learns the name with the first.
const maxMismatches = 2

// parseRequest reads <authenticate/>.
func parseRequest(n *stream.Nonza) (*request, error) {
	r := new(request)
	if err := n.Decode(r); err != nil || r.Bind == nil {
		return r, err
	}
	el, err := xmpp.ReadElement(xml.NewDecoder(bytes.NewReader(n.XML())))
	if err != nil {
		return nil, err
	}
	for _, c := range el.Children {
		if c.Space == nsBind2 && c.Local == "bind" {
			r.Features = c.Children
			break
		}
	}
	return r, nil
}

// proven is an exchange that has ended well, with the mechanism's last words.
type proven struct {
	*auth.Exchange
	additional []byte // nil for none
	after      bool   // a task followed, and the additional data were sent with it
}

// exchange2 is the SASL exchange and the tasks after it: XEP-0388 §2.4 to §2.6. nil without an error means that it failed and the client was
// told.
func (c *conn) exchange2(ctx context.Context, r *request, offered []string) (*proven, error) {
	fail := func(err error) (*proven, error) { return nil, c.failure2(ctx, r.Mechanism, err) }
	req := auth.Request{From: c.from, Agent: auth.UserAgent{ID: r.Agent.ID, Software: r.Agent.Software, Device: r.Agent.Device}}
	if r.Token != nil {
		req.Token = r.Token.Mechanism
	}
	if r.Fast != nil {
		f, err := auth.ParseFast(r.Fast.Count, r.Fast.Invalidate)
		if err != nil {
			return fail(err)
		}
		req.Fast = f
	}
	ex, err := c.server.auth.StartSASL2(ctx, c.domain, r.Mechanism, c.channel, offered, c.server.auth.FastMechanisms(c.channel), req)
	if err != nil {
		return nil, c.failure2(ctx, "other", err) // the name may be anything
	}
	var data []byte
	present := r.Initial != nil
	if present {
		if data, err = auth.DecodeData(r.Initial.Data); err != nil {
			return fail(err)
		}
	}
	p := &proven{Exchange: ex}
	for {
		challenge, done, err := ex.Step(ctx, data, present)
		if err != nil {
			return fail(err)
		}
		if done {
			p.additional = challenge
			break
		}
		if err := c.send(xmpp.El(nsSASL2, "challenge").Say(base64.StdEncoding.EncodeToString(challenge)).AppendTo(nil, "")); err != nil {
			return nil, err
		}
		answer, err := c.answer(ctx, "response")
		if err != nil {
			return fail(err)
		}
		if data, err = auth.DecodeData(answer.Text()); err != nil {
			return fail(err)
		}
		present = true
	}
	tasks, err := ex.Upgrades(ctx, r.Upgrades)
	if err != nil {
		c.log.Warn("find upgrades", "err", err) // the login goes on without
	}
	for _, task := range tasks {
		if err := c.upgrade(ctx, p, task); err != nil {
			return fail(err)
		}
	}
	return p, nil
}

// errStream carries a stream error through failure2.
type errStream struct{ error }

// answer reads the element that the client has to send now: XEP-0388 §2.4 allows nothing else but <abort/>.
func (c *conn) answer(_ context.Context, local string) (*stream.Nonza, error) {
	ev, err := c.next()
	switch {
	case err != nil:
		return nil, errStream{err}
	case ev.Kind == stream.Close:
		return nil, errStream{errClosed}
	case ev.Kind == stream.Nonzas && ev.Element.Space == nsSASL2 && ev.Element.Local == local:
		return ev.Element, nil
	case ev.Kind == stream.Nonzas && ev.Element.Space == nsSASL2 && ev.Element.Local == "abort":
		return nil, auth.Failure{Condition: "aborted"} // RFC 6120 §6.5.1
	}
	return nil, errStream{streamerr.NotAuthorized} // "Servers MUST disconnect Clients immediately"
}

// upgrade has the client perform a task of XEP-0480 §3.
func (c *conn) upgrade(ctx context.Context, p *proven, task string) error {
	cont := xmpp.El(nsSASL2, "continue")
	if p.additional != nil && !p.after {
		cont.Add(xmpp.El("", "additional-data").Say(base64.StdEncoding.EncodeToString(p.additional)))
	}
	p.after = true
	cont.Add(xmpp.El("", "tasks").Add(xmpp.El("", "task").Say(task)))
	if err := c.send(cont.AppendTo(nil, "")); err != nil {
		return errStream{err}
	}
	next, err := c.answer(ctx, "next")
	if err != nil {
		return err
	}
	if next.Attr("task") != task {
		return auth.Failure{Condition: "malformed-request"}
	}
	u, err := p.Upgrade(task)
	if err != nil {
		return err
	}
	salt := xmpp.El(nsScramUp, "salt", "iterations", strconv.Itoa(u.Iterations())).Say(u.Salt())
	if err := c.send(xmpp.El(nsSASL2, "task-data").Add(salt).AppendTo(nil, "")); err != nil {
		return errStream{err}
	}
	data, err := c.answer(ctx, "task-data")
	if err != nil {
		return err
	}
	var v struct {
		Hash string `xml:"urn:xmpp:scram-upgrade:0 hash"`
	}
	if err := data.Decode(&v); err != nil {
		return auth.Failure{Condition: "malformed-request"}
	}
	return u.Finish(ctx, v.Hash)
}

// failure2 answers an authentication that failed: XEP-0388 §2.6.2.
func (c *conn) failure2(ctx context.Context, mechanism string, err error) error {
	var es errStream
	if errors.As(err, &es) {
		return es.error
	}
	return c.fail(ctx, nsSASL2, mechanism, err)
}

// succeed carries out what the client asked for inline, and says success: XEP-0388 §2.6.1. Resumption comes first, and a resumed stream is
// not bound (XEP-0386 §3, XEP-0198 §9.2).
func (c *conn) succeed(ctx context.Context, r *request, p *proven) (done, ready bool, err error) {
	if c.claimed != "" && c.claimed != p.Account().String() {
		return false, false, c.failure2(ctx, r.Mechanism, auth.Failure{Condition: "invalid-authzid"}) // XEP-0388 §2.3
	}
	token, hasToken, err := p.Token(ctx)
	if f := (auth.Failure{}); errors.As(err, &f) && f.Condition == "not-authorized" {
		return false, false, c.failure2(ctx, r.Mechanism, err)
	} else if err != nil {
		c.log.Error("make token", "err", err) // the login goes on without
	}
	c.account, c.proof = p.Account(), p.Exchange
	c.agent = newAgent(c.account, r)
	c.server.metrics.auth.WithLabelValues(r.Mechanism, "success").Inc()
	c.log.Debug("authenticated", "mechanism", r.Mechanism, "profile", "sasl2")
	c.setLimits(c.cfg.Authenticated)

	success := xmpp.El(nsSASL2, "success")
	if p.additional != nil && !p.after {
		success.Add(xmpp.El("", "additional-data").Say(base64.StdEncoding.EncodeToString(p.additional)))
	}
	identifier := xmpp.El("", "authorization-identifier").Say(c.account.String())
	success.Add(identifier)
	resumed := false
	if r.Resume != nil {
		el, err := c.resumeInline(ctx, r.Resume.PrevID, r.Resume.H)
		if err != nil {
			return false, false, err
		}
		success.Add(el)
		if resumed = el.Local != "failed"; resumed {
			identifier.Say(c.session.bound.JID().String())
		}
	}
	if r.Bind != nil && !resumed {
		bound, err := c.bindInline(ctx, r)
		if err != nil {
			return false, false, err
		}
		if bound != nil {
			identifier.Say(c.session.bound.JID().String())
			success.Add(bound)
		}
	}
	if hasToken {
		success.Add(xmpp.El(nsFast, "token", "expiry", token.Expiry.UTC().Format(time.RFC3339), "token", token.Secret)) // XEP-0484 §3.3
	}
	if c.session != nil && c.proof.Outdated() {
		return false, false, streamerr.NotAuthorized // as in bind
	}
	said := [][]byte{success.AppendTo(nil, "")}
	if !resumed {
		features := c.features(c.session != nil) // XEP-0388 §2.6.1: at once, without a stream restart
		if c.over != nil {
			features = stream.Standalone(features)
		}
		said = append(said, features)
	}
	return true, c.session != nil, c.send(said...)
}

// resumeInline is <resume/> inside <authenticate/>: <resumed/> or <failed/>.
func (c *conn) resumeInline(ctx context.Context, id, h string) (*xmpp.Element, error) {
	n, err := strconv.ParseUint(h, 10, 32)
	if err != nil {
		return xmpp.SMFailed("bad-request", ""), nil
	}
	resumed, failed, err := c.take(ctx, id, uint32(n))
	if failed != nil || err != nil {
		return failed, err
	}
	c.server.returned(c.session.bound)
	return xmpp.RawElement(resumed), nil
}

// bindInline is Bind 2: XEP-0386 §3. nil without an error means that no resource could be bound; the client may try the old way.
func (c *conn) bindInline(ctx context.Context, r *request) (*xmpp.Element, error) {
	bound := xmpp.El(nsBind2, "bound")
	var m *management
	if e := r.Bind.Enable; e != nil {
		var enabled *xmpp.Element
		m, enabled = c.newManagement(e.Resume, e.Max)
		bound.Add(enabled)
	}
	if err := c.bindResource(ctx, c.resourceOf(r), m); err != nil {
		c.log.Warn("bind resource", "err", err)
		return nil, nil
	}
	s := c.session
	s.replace()
	if m != nil {
		if m.resume {
			s.server.manage(s, m.id)
		}
		c.counting = true
	}
	for _, f := range c.server.router.Registry().BindFeatures {
		bound.Add(f.Bind(ctx, s.bound, feature(r.Features, f)))
	}
	if r.Bind.Inactive != nil {
		s.setActive(ctx, false) // XEP-0386 §2.2
	}
	return bound, nil
}

// feature is the element that asks for f, nil when there is none.
func feature(requested []*xmpp.Element, f xmpp.BindFeature) *xmpp.Element {
	if f.Local == "" {
		return nil
	}
	for _, e := range requested {
		if e.Space == f.Space && e.Local == f.Local {
			return e
		}
	}
	return nil
}

// replace ends the earlier sessions of the same client, which has another tag now: XEP-0386 §3. One with the same resource has been ended by
// binding.
func (s *session) replace() {
	if s.agent == nil || s.agent.Client == "" {
		return
	}
	for _, o := range s.server.router.Sessions(s.bound.Bare()) {
		if o, ok := o.(*router.Session); ok && o != s.bound && o.Describe().Client == s.agent.Client {
			o.Close(streamerr.Conflict)
		}
	}
}

// resourceOf is the resource of a client: its tag and what its user agent has as a constant name, so that the same client gets the same
// resource, with the separator that XEP-0386 §4 recommends.
func (c *conn) resourceOf(r *request) string {
	tag := strings.TrimSpace(r.Bind.Tag)
	for len(tag) > 64 { // chosen: a name of a program
		_, n := utf8.DecodeLastRuneInString(tag)
		tag = tag[:len(tag)-n]
	}
	if _, err := c.account.WithResource(tag); tag != "" && err != nil {
		tag = "" // XEP-0386 §4: "subject to the necessary validation"
	}
	if r.Agent.ID == "" {
		if tag == "" {
			return ""
		}
		return tag + "/" + rand.Text()[:12]
	}
	name := c.server.auth.ResourceName(c.account, r.Agent.ID)
	if tag == "" {
		return name
	}
	return tag + "/" + name
}
