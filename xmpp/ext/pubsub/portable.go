package pubsub

import (
	"fmt"

	"balcony/xmpp"
)

// Form is the configuration as a form without texts for people, for other servers to read: XEP-0227 §4.10.1.
func (c Config) Form() *xmpp.Element {
	x := newForm("form", formConfig)
	for i := range configFields {
		x.Add(newField("pubsub#"+configFields[i].name, "", "", configFields[i].get(&c)...))
	}
	return x
}

// ParseConfig reads such a form over the configuration that a node of an account has by default. Fields that are not known are left alone: XEP-0227
// §4.10.1.
func ParseConfig(x *xmpp.Element) (Config, error) {
	c := pepConfig()
	f, ok := readForm(x)
	if !ok || f.kind != "" && f.kind != formConfig {
		return c, fmt.Errorf("no form of %s", formConfig)
	}
	for _, fd := range f.fields {
		if known := configIndex[fd.name]; known != nil {
			if err := known.set(&c, fd.values); err != nil {
				return c, fmt.Errorf("%s: %w", fd.name, err)
			}
		}
	}
	return c, nil
}

// DefaultConfig is the configuration of a node of an account that nobody has configured: XEP-0163 §5.
func DefaultConfig() Config { return pepConfig() }

// Form is the options as a form.
func (o Options) Form() *xmpp.Element { return o.form("submit") }

// ParseOptions reads a form of options; ok is false when it asks for what this service cannot do.
func ParseOptions(x *xmpp.Element) (o Options, ok bool) {
	f, ok := readForm(x)
	return o, ok && o.submit(f)
}

// ParseAffiliation reads the name of an affiliation (XEP-0060 §4.1).
func ParseAffiliation(name string) (Affiliation, bool) {
	return affiliationOf(name)
}
