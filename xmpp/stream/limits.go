package stream

// Limits bound what one peer can make a decoder hold. They are checked while reading, before the bytes of an element are complete.
// Exceeding one is a policy-violation (RFC 6120 §4.9.3.14).
type Limits struct {
	Bytes      int // of one top-level element or stream header; above 2 GiB is 2 GiB
	Depth      int // of nested elements; a stanza is at depth 1
	Attributes int // of one element, namespace declarations included
	Children   int // direct children of one top-level element
}

// BeforeAuth are the limits until SASL has succeeded. Bytes: RFC 6120 §13.12 forbids less than 10,000. Children: chosen, SASL and bind
// need two, and 64 entries of the index keep an unauthenticated peer far below 64 KiB of memory.
var BeforeAuth = Limits{Bytes: 10 << 10, Depth: 64, Attributes: 64, Children: 64}

// DefaultLimits are the limits of an authenticated stream. Children: chosen, a whole roster or block list has its items one level
// deeper, and 1,024 entries of the index take 48 KiB, less than the stanza may take itself.
func DefaultLimits() Limits {
	return Limits{Bytes: 256 << 10, Depth: 64, Attributes: 64, Children: 1024}
}
