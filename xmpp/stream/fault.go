package stream

import (
	streamerr "mellium.im/xmpp/stream"
)

// fault is why the scanner stopped.
type fault uint8

const (
	none fault = iota
	more
	badFormat
	badNamespacePrefix
	invalidNamespace
	notWellFormed
	restrictedXML
	unsupportedEncoding
	tooManyBytes
	tooDeep
	tooManyAttributes
	tooManyChildren
	tooManyPrefixes
)

// faults are the stream errors of RFC 6120 §4.9.3. Those of policy say which it was, as §4.9.3.14 allows.
var faults = [...]streamerr.Error{
	badFormat:           streamerr.BadFormat,
	badNamespacePrefix:  streamerr.BadNamespacePrefix,
	invalidNamespace:    streamerr.InvalidNamespace,
	notWellFormed:       streamerr.NotWellFormed,
	restrictedXML:       streamerr.RestrictedXML,
	unsupportedEncoding: streamerr.UnsupportedEncoding,
	tooManyBytes:        policy("element too large"),
	tooDeep:             policy("elements nested too deeply"),
	tooManyAttributes:   policy("too many attributes"),
	tooManyChildren:     policy("too many child elements"),
	tooManyPrefixes:     policy("too many namespace prefixes"),
}

func policy(text string) streamerr.Error {
	e := streamerr.PolicyViolation
	e.Text = append(e.Text, struct{ Lang, Value string }{"en", text})
	return e
}

// err is the stream error of f.
func (f fault) err() error {
	if f == none || f == more || int(f) >= len(faults) {
		return streamerr.InternalServerError
	}
	return faults[f]
}
