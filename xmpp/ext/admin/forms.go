package admin

import (
	"strconv"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	maxAccounts = 100  // chosen: accounts that one command may change
	maxListed   = 1000 // chosen: accounts in one list, which is one stanza
	maxPassword = 1024 // chosen: bytes
)

var formType = form.Hidden("FORM_TYPE", form.Value(NS))

// The forms, as XEP-0133 has them but for the fields that mean nothing here.
var (
	addUser = []form.Field{
		form.Title("Adding a User"), form.Instructions("Fill out this form to add a user."), formType,
		form.JID("accountjid", form.Label("The Jabber ID for the account to be added"), form.Required),
		form.TextPrivate("password", form.Label("The password for this account"), form.Required), // there is no account without one
		form.TextPrivate("password-verify", form.Label("Retype password")),
	}
	changePassword = []form.Field{
		form.Title("Changing a User Password"), form.Instructions("Fill out this form to change a user's password."), formType,
		form.JID("accountjid", form.Label("The Jabber ID for this account"), form.Required),
		form.TextPrivate("password", form.Label("The password for this account"), form.Required),
	}
	userStats = []form.Field{
		form.Title("Get User Statistics"), form.Instructions("Fill out this form to gather user statistics."), formType,
		form.JID("accountjid", form.Label("The Jabber ID for statistics"), form.Required),
	}
	announcement = []form.Field{
		form.Title("Making an Announcement"), form.Instructions("Fill out this form to make an announcement to all active users of this service."), formType,
		form.TextMulti("announcement", form.Label("Announcement"), form.Required),
	}
)

// accountJIDs is the form of the commands that take accounts.
func accountJIDs(title, instructions, label string) []form.Field {
	return []form.Field{
		form.Title(title), form.Instructions(instructions), formType,
		form.JIDMulti("accountjids", form.Label(label), form.Required),
	}
}

// maxItems is the form of the lists.
func maxItems(title, instructions string) []form.Field {
	options := []form.Option{form.Label("Maximum number of items to show")}
	for _, n := range []string{"25", "50", "75", "100", "150", "200"} {
		options = append(options, form.ListItem(n, n))
	}
	return []form.Field{form.Title(title), form.Instructions(instructions), formType, form.List("max_items", append(options, form.ListItem("None", "none"))...)}
}

// result is a form of type result with one field.
func result(f form.Field) *form.Data { return form.New(form.Result, formType, f) }

// errBadPayload: XEP-0050 §4.4, for example without a required field.
var errBadPayload = xmpp.Error{Stanza: xmpp.ErrBadRequest, Detail: xmpp.El("http://jabber.org/protocol/commands", "bad-payload")}

// notAcceptable: XEP-0004 §4, the value of a field is not valid.
func notAcceptable(text string) error { return xmpp.Fail(stanza.Modify, stanza.NotAcceptable, text) }

// submission is a form that was filled in.
type submission struct{ form *form.Data }

func (s submission) all(field string) []string {
	v, _ := s.form.Raw(field)
	return v
}

func (s submission) one(field string) string {
	if v := s.all(field); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (s submission) has(field string) bool {
	_, ok := s.form.Raw(field)
	return ok
}

// account is the bare JID of the field accountjid.
func (c call) account() (jid.JID, error) {
	text := c.one("accountjid")
	if text == "" {
		return jid.JID{}, errBadPayload
	}
	return c.bare(text)
}

// jids are the JIDs of accounts and their sessions in the field accountjids, each once (XEP-0004 §3.3).
func (c call) jids() ([]jid.JID, error) {
	var list []jid.JID
	seen := make(map[string]bool)
	for _, text := range c.all("accountjids") {
		j, err := c.jid(text)
		if err != nil {
			return nil, err
		}
		if !seen[j.String()] {
			seen[j.String()] = true
			list = append(list, j)
		}
	}
	switch {
	case len(list) == 0:
		return nil, errBadPayload
	case len(list) > maxAccounts:
		return nil, notAcceptable("No more than " + strconv.Itoa(maxAccounts) + " at a time.")
	}
	return list, nil
}

// accounts are the bare JIDs in the field accountjids.
func (c call) accounts() ([]jid.JID, error) {
	list, err := c.jids()
	if err != nil {
		return nil, err
	}
	for _, j := range list {
		if j.Resourcepart() != "" {
			return nil, notAcceptable("A Jabber ID has to be of the form user@host.")
		}
	}
	return list, nil
}

// jid parses the JID of an account of the domain, with or without a resource. The right to administer a domain is none to administer another.
func (c call) jid(text string) (jid.JID, error) {
	j, err := jid.Parse(text)
	switch {
	case err != nil || j.Localpart() == "":
		return jid.JID{}, notAcceptable("A Jabber ID is not that of a user.")
	case j.Domainpart() != c.domain:
		return jid.JID{}, xmpp.Fail(stanza.Cancel, stanza.NotAllowed, "A Jabber ID is of another domain.")
	}
	return j, nil
}

func (c call) bare(text string) (jid.JID, error) {
	j, err := c.jid(text)
	if err == nil && j.Resourcepart() != "" {
		return jid.JID{}, notAcceptable("The Jabber ID has to be of the form user@host.")
	}
	return j, err
}

// password is the field of that name.
func (c call) password() (string, error) {
	p := c.one("password")
	switch {
	case p == "":
		return "", errBadPayload
	case len(p) > maxPassword:
		return "", notAcceptable("The password is too long.")
	}
	return p, nil
}

// maxItems is the field max_items: how many to list.
func (c call) maxItems() (int, error) {
	switch text := c.one("max_items"); text {
	case "", "none":
		return maxListed, nil
	default:
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || n == 0 {
			return 0, notAcceptable("max_items is not a number of the form.") // XEP-0133 §4.18
		}
		return min(int(n), maxListed), nil
	}
}
