package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"strconv"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// scram is the server's side of a SCRAM mechanism (RFC 5802 §5) in one exchange.
type scram struct {
	exchange *Exchange
	hash     *scramHash
	plus     bool
}

// scramState is what the server keeps between the client's two messages.
type scramState struct {
	account  jid.JID
	change   uint32 // of Authenticator.changes, before the verifier was read
	verifier Verifier
	genuine  bool     // is it the account's, or does it only look like one?
	bare     string   // client-first-message-bare
	first    string   // server-first-message
	nonce    string   // the whole nonce, the client's part and the server's
	bindings []string // the values that c= may have
}

func (s scram) mechanism() sasl.Mechanism {
	return sasl.Mechanism{Name: s.exchange.mechanism, Next: s.next}
}

// next is called by the negotiator, which keeps the state as data.
func (s scram) next(n *sasl.Negotiator, response []byte, data any) (more bool, challenge []byte, _ any, err error) {
	switch n.State() & sasl.StepMask {
	case sasl.AuthTextSent:
		nonce := s.exchange.nonce
		if nonce == nil {
			nonce = n.Nonce() // 128 bits of crypto/rand in base64
		}
		state, err := s.first(string(response), string(nonce))
		if err != nil {
			return false, nil, nil, err
		}
		return true, []byte(state.first), state, nil
	case sasl.ResponseSent:
		challenge, err = s.final(data.(*scramState), string(response))
		return false, challenge, nil, err
	}
	return false, nil, nil, sasl.ErrTooManySteps
}

// first answers the client-first-message with the server-first-message.
func (s scram) first(message, nonce string) (*scramState, error) {
	f, err := parseClientFirst(message)
	if err != nil {
		return nil, err
	}
	bindings, err := s.bindings(f)
	if err != nil {
		return nil, err
	}
	e := s.exchange
	account, err := e.identify(f.name, f.authzid)
	if err != nil {
		return nil, err
	}
	state := &scramState{account: account, change: e.auth.changes.of(account), bare: f.bare, nonce: f.nonce + nonce, bindings: bindings}
	all, err := e.auth.verifiers(e.ctx, account)
	if err != nil {
		return nil, err
	}
	// RFC 6120 §6.5.10: an account that does not exist looks like any other, to the end. The fake is made for everybody, so that the time
	// it takes tells nothing.
	fake := e.auth.fake(s.hash, account)
	if state.verifier, state.genuine = s.hash.pick(all); !state.genuine {
		state.verifier = fake
	}
	state.first = "r=" + state.nonce + ",s=" + base64.StdEncoding.EncodeToString(state.verifier.Salt) +
		",i=" + strconv.Itoa(state.verifier.Iterations) + s.hash.protection(e.offer)
	return state, nil
}

// bindings checks what the client says about channel binding (RFC 5802 §6) and returns the values that its c= may have.
func (s scram) bindings(f clientFirst) ([]string, error) {
	switch {
	case s.plus && f.binding == "":
		return nil, failf(malformedRequest, "%s without channel binding", s.exchange.mechanism)
	case !s.plus && f.binding != "":
		return nil, failf(malformedRequest, "channel binding with %s", s.exchange.mechanism)
	case f.believesNone && s.exchange.plusOffered:
		// RFC 5802 §6: the client did not see the -PLUS mechanisms that we offered, so somebody took them away. RFC 6120 §6.5.9: what is
		// left is weaker than we allow to a client that can do more.
		fl := failf(mechanismTooWeak, "client believes that no channel binding was offered: downgrade")
		fl.Text = "Channel binding was offered, but the offer did not reach the client."
		fl.Unbound = true
		return nil, fl
	case f.binding == "":
		return []string{base64.StdEncoding.EncodeToString([]byte(f.header))}, nil
	}
	data := bindingData(s.exchange.channel, f.binding)
	if data == nil {
		// RFC 5802 §6: MUST fail. RFC 6120 §6.5.10: "some generic authentication failure".
		fl := failf(notAuthorized, "channel binding type is unknown or not available")
		fl.Text = "This type of channel binding is not available."
		fl.Unbound = true
		return nil, fl
	}
	values := make([]string, 0, len(data))
	for _, d := range data {
		values = append(values, base64.StdEncoding.EncodeToString(append([]byte(f.header), d...)))
	}
	return values, nil
}

// final verifies the client-final-message and answers it with the server-final-message.
func (s scram) final(state *scramState, message string) ([]byte, error) {
	f, err := parseClientFinal(message, s.hash.size)
	if err != nil {
		return nil, err
	}
	e := s.exchange
	t, err := e.begin(state.account)
	if err != nil {
		return nil, err
	}
	// RFC 5802 §5.1: c= and the whole nonce are what they have to be. §3: the proof is the ClientKey, covered with the ClientSignature.
	bound := 0
	for _, b := range state.bindings {
		bound |= subtle.ConstantTimeCompare([]byte(f.binding), []byte(b))
	}
	fresh := subtle.ConstantTimeCompare([]byte(f.nonce), []byte(state.nonce))
	message = state.bare + "," + state.first + "," + f.withoutProof // AuthMessage
	key := s.hash.mac(state.verifier.StoredKey, message)
	subtle.XORBytes(key, key, f.proof)
	right := s.hash.matches(state.verifier, key)
	switch {
	case bound != 1:
		// Not counted as a wrong password: the client, or somebody between, has another channel.
		return nil, failf(notAuthorized, "channel binding does not match")
	case fresh != 1:
		return nil, failf(notAuthorized, "nonce does not match")
	case !right || !state.genuine:
		e.auth.backoff.failed(t)
		return nil, failf(notAuthorized, "wrong proof, or no such account")
	}
	if err := e.admit(t, state.account, state.verifier, state.change); err != nil {
		return nil, err
	}
	signature := s.hash.mac(state.verifier.ServerKey, message) // RFC 5802 §3: ServerSignature
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), nil
}
