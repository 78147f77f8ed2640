package c2s

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

const (
	nsSASL2   = "urn:xmpp:sasl:2"         // XEP-0388
	nsBind2   = "urn:xmpp:bind:0"         // XEP-0386
	nsFast    = "urn:xmpp:fast:0"         // XEP-0484
	nsUpgrade = "urn:xmpp:sasl:upgrade:0" // XEP-0480
	nsScramUp = "urn:xmpp:scram-upgrade:0"
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
	Token *struct { // XEP-0484 §3.2
		Mechanism string `xml:"mechanism,attr"`
	} `xml:"urn:xmpp:fast:0 request-token"`
	Fast *struct { // XEP-0484 §3.4
		Count      string `xml:"count,attr"`
		Invalidate string `xml:"invalidate,attr"`
	} `xml:"urn:xmpp:fast:0 fast"`
	Upgrades []string `xml:"urn:xmpp:sasl:upgrade:0 upgrade"` // XEP-0480 §3
}

// authentication is the stream feature of XEP-0388 §2.1 with what can be done inline.
func (c *conn) authentication(offered []string) *xmpp.Element {
	el := xmpp.El(nsSASL2, "authentication")
	for _, m := range offered {
		el.Add(xmpp.El("", "mechanism").Say(m))
	}
	fast := xmpp.El(nsFast, "fast") // XEP-0484 §3.1
	for _, m := range c.server.auth.FastMechanisms(c.channel) {
		fast.Add(xmpp.El("", "mechanism").Say(m))
	}
	bind := xmpp.El(nsBind2, "bind").Add(xmpp.El("", "inline").Add( // XEP-0386 §2
		xmpp.El("", "feature", "var", nsSM), xmpp.El("", "feature", "var", nsCSI)))
	inline := xmpp.El("", "inline").Add(xmpp.El(nsSM, "sm"), bind)
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
	var r request
	if err := n.Decode(&r); err != nil {
		return false, false, c.failure2(ctx, "other", auth.Failure{Condition: "malformed-request"})
	}
	ex, err := c.exchange2(ctx, &r, offered)
	if err != nil || ex == nil {
		return false, false, err
	}
	return c.succeed(ctx, &r, ex)
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
	c.server.metrics.auth.WithLabelValues(r.Mechanism, "success").Inc()
	c.log = c.log.With("account", c.account.String())
	c.log.Debug("authenticated", "mechanism", r.Mechanism, "profile", "sasl2")
	c.dec.SetLimits(c.cfg.Authenticated)

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
	b := success.AppendTo(nil, "")
	if !resumed {
		b = stream.AppendFeatures(b, c.features(c.session != nil)...) // XEP-0388 §2.6.1: at once, without a stream restart
	}
	return true, c.session != nil, c.send(b)
}

// resumeInline is <resume/> inside <authenticate/>: <resumed/> or <failed/>.
func (c *conn) resumeInline(ctx context.Context, id, h string) (*xmpp.Element, error) {
	n, err := strconv.ParseUint(h, 10, 32)
	if err != nil {
		return smFailed("bad-request", ""), nil
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
	if err := c.bindResource(ctx, resourceOf(c.account, r)); err != nil {
		c.log.Warn("bind resource", "err", err)
		return nil, nil
	}
	bound := xmpp.El(nsBind2, "bound")
	s := c.session
	if e := r.Bind.Enable; e != nil {
		m, enabled := c.newManagement(e.Resume, e.Max)
		s.mu.Lock()
		s.sm = m
		s.mu.Unlock()
		if m.resume {
			s.server.manage(s, m.id)
		}
		c.counting = true
		bound.Add(enabled)
	}
	if r.Bind.Inactive != nil {
		s.setActive(ctx, false) // XEP-0386 §4
	}
	return bound, nil
}

// resourceOf is the resource of a client: its tag and what its user agent has as a constant name, so that the same client gets the same
// resource and its earlier session ends (XEP-0386 §3.1).
func resourceOf(account jid.JID, r *request) string {
	tag := strings.TrimSpace(r.Bind.Tag)
	for len(tag) > 64 { // chosen: a name of a program
		_, n := utf8.DecodeLastRuneInString(tag)
		tag = tag[:len(tag)-n]
	}
	if r.Agent.ID == "" {
		if tag == "" {
			return ""
		}
		return tag + "." + newStreamID()[:12]
	}
	sum := sha256.Sum256([]byte("balcony resource\x00" + account.String() + "\x00" + r.Agent.ID))
	name := base64.RawURLEncoding.EncodeToString(sum[:9])
	if tag == "" {
		return name
	}
	return tag + "." + name
}
