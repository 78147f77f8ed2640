package stream

// Nonza is a top-level element that is no stanza: starttls, auth, an acknowledgement … It owns its bytes and is read-only.
type Nonza struct {
	Space, Local string // the expanded name; Space is the namespace itself, for example jabber:client, never empty for it

	raw []byte // the element with every namespace that it uses declared
}

// Attr is the value of the attribute without a namespace of that name, "" when absent.
func (n *Nonza) Attr(name string) string { return "" }

// Text is the character data of the element without that of its children.
func (n *Nonza) Text() string { return "" }

// Decode unmarshals the element with encoding/xml: for cold paths.
func (n *Nonza) Decode(v any) error { return nil }

// XML is the element as it means the same anywhere. Read-only.
func (n *Nonza) XML() []byte { return n.raw }
