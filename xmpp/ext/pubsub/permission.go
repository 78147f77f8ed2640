package pubsub

// Action is what an entity wants to do at a node.
type Action uint8

// The actions of XEP-0060 §4.1, and those of an owner that it lists in §8.
const (
	Join     Action = iota // subscribe
	Retrieve               // items
	Publish
	Retract // an item
	Purge
	Configure
	Delete
	Manage // subscriptions and affiliations
	actions
)

// rule is what decides in a cell of the table.
type rule uint8

const (
	no    rule = iota
	yes        // whatever the node's configuration
	model      // as the access model says
	posts      // as the publish model says
	own        // what the entity has published itself
)

// permissions is XEP-0060 §4.1, the table of privileges, and §8: what an affiliation may do. Of the choices that the note below that table leaves, a
// publisher removes what it has published, and purging is the owner's.
var permissions = [Owner + 1][actions]rule{
	//            Join   Retrieve Publish Retract Purge Configure Delete Manage
	None:        {model, model, posts, own, no, no, no, no},
	Outcast:     {no, no, no, no, no, no, no, no},
	Member:      {yes, yes, posts, own, no, no, no, no},
	PublishOnly: {no, no, yes, own, no, no, no, no},
	Publisher:   {yes, yes, yes, own, no, no, no, no},
	Owner:       {yes, yes, yes, yes, yes, yes, yes, yes},
}

// Relation is what an access model asks about an entity.
type Relation struct {
	Presence   bool // it is subscribed to the presence of an owner
	Group      bool // an owner has it in one of the node's roster groups
	Subscribed bool // to the node
	Author     bool // it has published the item in question
}

// verdict is the answer to an action.
type verdict uint8

const (
	allowed          verdict = iota
	pending                  // the owner must approve: XEP-0060 §6.1.4
	forbidden                // XEP-0060 §6.1.3.8 and others: not with this affiliation
	presenceRequired         // XEP-0060 §6.1.3.2
	notInGroup               // XEP-0060 §6.1.3.3
	closed                   // XEP-0060 §6.1.3.4
	notSubscribed            // XEP-0060 §6.5.9.3
)

// decide says whether an entity of that affiliation and relation may do something at a node: the only place that does. The access models are
// XEP-0060 §4.5 and §6.5.1, the publish models §8.1.3.
func decide(a Affiliation, r Relation, access AccessModel, publish PublishModel, do Action) verdict {
	if a > Owner || do >= actions {
		return forbidden
	}
	switch permissions[a][do] {
	case yes:
		return allowed
	case own:
		if r.Author {
			return allowed
		}
	case posts:
		if publish == Anybody || publish == Subscribers && r.Subscribed {
			return allowed
		}
	case model:
		switch access {
		case Open:
			return allowed
		case Presence:
			if r.Presence {
				return allowed
			}
			return presenceRequired
		case Roster:
			if r.Presence && r.Group {
				return allowed
			}
			return notInGroup
		case Authorize:
			switch {
			case r.Subscribed:
				return allowed
			case do == Join:
				return pending
			}
			return notSubscribed
		}
		return closed
	}
	return forbidden
}
