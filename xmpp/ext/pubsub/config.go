package pubsub

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// The FORM_TYPEs of XEP-0060 §16.4 and §7.1.5.
const (
	formConfig    = NS + "#node_config"
	formOptions   = NS + "#publish-options"
	formSubscribe = NS + "#subscribe_options"
	formAuthorize = NS + "#subscribe_authorization"
	formMeta      = NS + "#meta-data"
)

// AccessModel says who may subscribe to a node and retrieve its items (XEP-0060 §4.5).
type AccessModel string

// The access models.
const (
	Open      AccessModel = "open"
	Presence  AccessModel = "presence"
	Roster    AccessModel = "roster"
	Authorize AccessModel = "authorize"
	Whitelist AccessModel = "whitelist"
)

// PublishModel says who may publish (XEP-0060 §8.1.3).
type PublishModel string

// The publish models.
const (
	Publishers  PublishModel = "publishers"
	Subscribers PublishModel = "subscribers"
	Anybody     PublishModel = "open"
)

// SendLast says when the last published item is sent (XEP-0060 §16.4.4).
type SendLast string

// The values of SendLast.
const (
	Never            SendLast = "never"
	OnSub            SendLast = "on_sub"
	OnSubAndPresence SendLast = "on_sub_and_presence"
)

// NodeFull says what happens to an item too many (XEP-0060 §7.1.2.5).
type NodeFull string

// The values of NodeFull.
const (
	RetractOldest NodeFull = "retract-oldest"
	DiscardOldest NodeFull = "discard-oldest"
	Reject        NodeFull = "reject"
)

// MaxItems is the value "max" of Config.MaxItems: as many as the server keeps. What happens to one more is what NodeFull says.
const MaxItems = -1

// Config is the configuration of a node: XEP-0060 §16.4.4. It is stored as JSON.
type Config struct {
	Title       string   `json:"title,omitempty"`
	Description string   `json:"description,omitempty"`
	Type        string   `json:"type,omitempty"`
	Language    string   `json:"language,omitempty"`
	Contact     []string `json:"contact,omitempty"`

	Access       AccessModel  `json:"access_model"`
	Groups       []string     `json:"roster_groups_allowed,omitempty"`
	PublishModel PublishModel `json:"publish_model"`
	MaxItems     int          `json:"max_items"`                  // MaxItems for "max"
	ItemExpire   int          `json:"item_expire,omitempty"`      // seconds; 0 never
	MaxPayload   int          `json:"max_payload_size,omitempty"` // bytes; 0 is the server's bound
	Persist      bool         `json:"persist_items"`
	NodeFull     NodeFull     `json:"publish_node_full"`
	ItemReply    string       `json:"itemreply,omitempty"` // "publisher": items say who published them; else a reply is for the owners, whom disco#info names

	SendLast      SendLast `json:"send_last_published_item"`
	Deliver       bool     `json:"deliver_notifications"`
	Payloads      bool     `json:"deliver_payloads"`
	NotifyConfig  bool     `json:"notify_config"`
	NotifyDelete  bool     `json:"notify_delete"`
	NotifyRetract bool     `json:"notify_retract"`
	NotifySub     bool     `json:"notify_sub"`
	PresenceBased bool     `json:"presence_based_delivery"`
	Subscribe     bool     `json:"subscribe"`
	Notification  string   `json:"notification_type"` // normal or headline
}

// Texts is how many bytes the owner has written into the configuration, beside what is chosen from lists.
func (c *Config) Texts() int {
	n := len(c.Title) + len(c.Description) + len(c.Type) + len(c.Language)
	for _, list := range [...][]string{c.Contact, c.Groups} {
		for _, s := range list {
			n += len(s) + 16 // chosen: about what its place in the list takes
		}
	}
	return n
}

// maxTexts bounds them. chosen: long texts and 64 contacts and groups of usual length; an account's nodes are looked through at the login of each contact.
const maxTexts = 8 << 10

// serviceConfig is the default of a pubsub service: XEP-0060 §4.5 and §16.4.4.
func serviceConfig() Config {
	return Config{
		Access: Open, PublishModel: Publishers, MaxItems: MaxItems, Persist: true, NodeFull: RetractOldest, ItemReply: "none", SendLast: Never,
		Deliver: true, Payloads: true, NotifyDelete: true, NotifyRetract: true, Subscribe: true,
		Notification: "headline", // XEP-0060 §12.7: not into the offline storage
	}
}

// pepConfig is the default of an account: XEP-0163 §5.
func pepConfig() Config {
	c := serviceConfig()
	c.Access, c.MaxItems, c.SendLast, c.PresenceBased = Presence, 1, OnSubAndPresence, true
	return c
}

var (
	errUnknownField = errors.New("unknown field")
	errFieldValue   = errors.New("value that the field cannot have")
)

// configField is one field of the forms.
type configField struct {
	name, typ, label string
	options          []string // of a list
	get              func(*Config) []string
	set              func(*Config, []string) error
}

// maxText bounds the texts of a configuration. chosen: people read them in a list of nodes.
const maxText = 1024

// configFields are the fields of pubsub#node_config, in the order in which the form shows them.
var configFields = []configField{
	textField("title", "A friendly name for the node", func(c *Config) *string { return &c.Title }),
	textField("description", "A description of the node", func(c *Config) *string { return &c.Description }),
	textField("type", "The semantic type information of data in the node", func(c *Config) *string { return &c.Type }),
	textField("language", "The default language of the node", func(c *Config) *string { return &c.Language }),
	{"contact", "jid-multi", "The JIDs of those to contact with questions", nil,
		func(c *Config) []string { return c.Contact },
		func(c *Config, v []string) error {
			v = filled(v)
			for i, s := range v {
				j, err := jid.Parse(s)
				if err != nil || i >= maxListed {
					return errFieldValue
				}
				v[i] = j.String()
			}
			c.Contact = v
			return nil
		}},
	listField("access_model", "Who may subscribe and retrieve items", func(c *Config) *AccessModel { return &c.Access }, Open, Presence, Roster, Authorize, Whitelist),
	{"roster_groups_allowed", "text-multi", "The roster group(s) allowed to subscribe and retrieve items", nil,
		func(c *Config) []string { return c.Groups },
		func(c *Config, v []string) error {
			v = filled(v)
			for i, s := range v {
				if len(s) > maxText || i >= maxListed {
					return errFieldValue
				}
			}
			c.Groups = v
			return nil
		}},
	listField("publish_model", "The publisher model", func(c *Config) *PublishModel { return &c.PublishModel }, Publishers, Subscribers, Anybody),
	{"max_items", "text-single", "The maximum number of items to persist; max for as many as the server keeps", nil,
		func(c *Config) []string {
			if c.MaxItems == MaxItems {
				return []string{"max"}
			}
			return []string{strconv.Itoa(c.MaxItems)}
		},
		func(c *Config, v []string) error {
			s := single(v)
			if s == "max" {
				c.MaxItems = MaxItems
				return nil
			}
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil || n == 0 {
				return errFieldValue
			}
			c.MaxItems = int(n)
			return nil
		}},
	{"item_expire", "text-single", "Number of seconds after which items go; max for never", nil,
		func(c *Config) []string {
			if c.ItemExpire == 0 {
				return []string{"max"}
			}
			return []string{strconv.Itoa(c.ItemExpire)}
		},
		func(c *Config, v []string) error {
			s := single(v)
			if s == "max" || s == "" {
				c.ItemExpire = 0
				return nil
			}
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				return errFieldValue
			}
			c.ItemExpire = int(n)
			return nil
		}},
	{"max_payload_size", "text-single", "The maximum payload size in bytes", nil,
		func(c *Config) []string {
			if c.MaxPayload == 0 {
				return []string{strconv.Itoa(maxPayload)}
			}
			return []string{strconv.Itoa(c.MaxPayload)}
		},
		func(c *Config, v []string) error {
			n, err := strconv.ParseUint(single(v), 10, 31)
			if err != nil {
				return errFieldValue
			}
			c.MaxPayload = int(min(n, maxPayload))
			return nil
		}},
	boolField("persist_items", "Whether to persist items to storage", func(c *Config) *bool { return &c.Persist }),
	listField("publish_node_full", "What to do when an item is published to a full node", func(c *Config) *NodeFull { return &c.NodeFull }, RetractOldest, DiscardOldest, Reject),
	// XEP-0060 §12.17: owner is kept as it was set; the 'publisher' attribute stays that of who published.
	listField("itemreply", "Whether owners or publisher should receive replies to items", func(c *Config) *string { return &c.ItemReply }, "none", "owner", "publisher"),
	listField("send_last_published_item", "When to send the last published item", func(c *Config) *SendLast { return &c.SendLast }, Never, OnSub, OnSubAndPresence),
	boolField("deliver_notifications", "Whether to deliver event notifications", func(c *Config) *bool { return &c.Deliver }),
	boolField("deliver_payloads", "Whether to deliver payloads with event notifications", func(c *Config) *bool { return &c.Payloads }),
	boolField("notify_config", "Whether to notify subscribers when the node configuration changes", func(c *Config) *bool { return &c.NotifyConfig }),
	boolField("notify_delete", "Whether to notify subscribers when the node is deleted", func(c *Config) *bool { return &c.NotifyDelete }),
	boolField("notify_retract", "Whether to notify subscribers when items are removed from the node", func(c *Config) *bool { return &c.NotifyRetract }),
	boolField("notify_sub", "Whether to notify owners about new subscribers and unsubscribes", func(c *Config) *bool { return &c.NotifySub }),
	boolField("presence_based_delivery", "Whether to deliver notifications to available users only", func(c *Config) *bool { return &c.PresenceBased }),
	boolField("subscribe", "Whether to allow subscriptions", func(c *Config) *bool { return &c.Subscribe }),
	listField("notification_type", "The delivery style for notifications", func(c *Config) *string { return &c.Notification }, "headline", "normal"),
	// What a node is in any case: clients send the whole form of another server, or set these to what they are.
	fixedField("node_type", "Whether the node is a leaf", "leaf"),
	fixedField("purge_offline", "Whether to purge all items when the relevant publisher goes offline", "0"),
	fixedField("tempsub", "Whether to make all subscriptions temporary, based on subscriber presence", "0"),
}

// maxListed bounds contacts and groups. chosen: far more than anybody sets.
const maxListed = 64

func filled(v []string) []string {
	return slices.DeleteFunc(slices.Clone(v), func(s string) bool { return s == "" })
}

// single is the value of a field with one.
func single(v []string) string {
	if len(v) == 0 {
		return ""
	}
	return strings.TrimSpace(v[0])
}

func textField(name, label string, at func(*Config) *string) configField {
	return configField{name, "text-single", label, nil,
		func(c *Config) []string { return filled([]string{*at(c)}) },
		func(c *Config, v []string) error {
			s := single(v)
			if len(s) > maxText || !utf8.ValidString(s) {
				return errFieldValue
			}
			*at(c) = s
			return nil
		}}
}

func boolField(name, label string, at func(*Config) *bool) configField {
	return configField{name, "boolean", label, nil,
		func(c *Config) []string { return []string{digit(*at(c))} },
		func(c *Config, v []string) error {
			b, ok := boolean(single(v))
			if !ok {
				return errFieldValue
			}
			*at(c) = b
			return nil
		}}
}

func listField[T ~string](name, label string, at func(*Config) *T, values ...T) configField {
	f := configField{name, "list-single", label, nil,
		func(c *Config) []string { return []string{string(*at(c))} },
		func(c *Config, v []string) error {
			s := T(single(v))
			if !slices.Contains(values, s) {
				return errFieldValue
			}
			*at(c) = s
			return nil
		}}
	for _, v := range values {
		f.options = append(f.options, string(v))
	}
	return f
}

// fixedField is a field with the one value that this server has for it.
func fixedField(name, label, value string) configField {
	f := configField{name, "list-single", label, []string{value},
		func(*Config) []string { return []string{value} },
		func(_ *Config, v []string) error {
			if b, ok := boolean(single(v)); ok && digit(b) == value || single(v) == value {
				return nil
			}
			return errFieldValue
		}}
	if value == "0" {
		f.typ, f.options = "boolean", nil
	}
	return f
}

// configIndex finds a field by its name with the prefix.
var configIndex = func() map[string]*configField {
	m := make(map[string]*configField, len(configFields))
	for i := range configFields {
		m["pubsub#"+configFields[i].name] = &configFields[i]
	}
	return m
}()

// form is the configuration as a form of the type "form": XEP-0060 §8.2.2.
func (c *Config) form() *xmpp.Element {
	x := newForm("form", formConfig)
	for i := range configFields {
		f := &configFields[i]
		fd := newField("pubsub#"+f.name, f.typ, f.label, f.get(c)...)
		for _, o := range f.options {
			fd.Add(xmpp.El("", "option", "label", o).Add(xmpp.El("", "value").Say(o)))
		}
		x.Add(fd)
	}
	return x
}

// result is the configuration for subscribers: XEP-0060 §8.2.5.3. The groups of the owner's roster are not for them.
func (c *Config) result() *xmpp.Element {
	x := newForm("result", formConfig)
	for i := range configFields {
		if f := &configFields[i]; f.name != "roster_groups_allowed" {
			x.Add(newField("pubsub#"+f.name, "", "", f.get(c)...))
		}
	}
	return x
}

// submit applies a submitted configuration form. Fields that are not known are left alone, as XEP-0060 §8.2 leaves to the service: clients send
// what other servers know.
func (c *Config) submit(f form) error {
	before := c.Texts()
	for _, fd := range f.fields {
		known := configIndex[fd.name]
		if known == nil {
			continue
		}
		if err := known.set(c, fd.values); err != nil {
			return err
		}
	}
	return c.fits(before)
}

// fits bounds a configuration as a whole. One that was larger before may stay so.
func (c *Config) fits(before int) error {
	if n := c.Texts(); n > maxTexts && n > before {
		return errFieldValue
	}
	return nil
}

// apply sets the fields of publish-options, of which each must be known: XEP-0060 §7.1.5.
func (c *Config) apply(f form) error {
	before := c.Texts()
	for _, fd := range f.fields {
		known := configIndex[fd.name]
		if known == nil {
			return errUnknownField
		}
		if err := known.set(c, fd.values); err != nil {
			return err
		}
	}
	return c.fits(before)
}

// meets reports whether the configuration is what publish-options ask for: XEP-0060 §7.1.5. A node that keeps more items than were asked for
// meets that, unless it was to keep just one: some clients ask for "max" and others for a number.
func (c *Config) meets(f form) bool {
	for _, fd := range f.fields {
		known := configIndex[fd.name]
		if known == nil {
			return false
		}
		want := *c
		if known.set(&want, fd.values) != nil {
			return false
		}
		if known.name == "max_items" {
			if !c.keeps(want.MaxItems) {
				return false
			}
			continue
		}
		a, b := slices.Clone(known.get(c)), slices.Clone(known.get(&want))
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			return false
		}
	}
	return true
}

// keeps reports whether a node with this configuration serves one who wants n items kept.
func (c *Config) keeps(n int) bool {
	switch {
	case c.MaxItems == n:
		return true
	case n == 1 || n == MaxItems:
		return false
	}
	return c.MaxItems == MaxItems || c.MaxItems > n
}
