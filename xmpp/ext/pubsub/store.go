package pubsub

import (
	"context"
	"errors"
	"time"

	"mellium.im/xmpp/jid"
)

// Errors of a Store.
var (
	ErrNoNode   = errors.New("no such node")
	ErrExists   = errors.New("node exists")
	ErrNodeFull = errors.New("node is full")                // a node that rejects (XEP-0060 §7.1.3.4) has its maximum of items, or the store's
	ErrMaxNodes = errors.New("too many nodes")              // of the service, or of the owner
	ErrFull     = errors.New("bound of the store reached")  // too many affiliations or subscriptions, or too many bytes
	ErrLast     = errors.New("a node must have an owner")   // XEP-0060 §8.9.2.4
	ErrAccount  = errors.New("no account to hold the node") // it was deleted meanwhile
)

// Affiliation is what an entity may do at a node (XEP-0060 §4.1). The values stand in the database.
type Affiliation uint8

// The affiliations, in the order of XEP-0060 §4.1 with the outcast between none and member.
const (
	None Affiliation = iota
	Outcast
	Member
	PublishOnly
	Publisher
	Owner
)

// State is the state of a subscription (XEP-0060 §4.2). The values stand in the database.
type State uint8

// The states of a subscription; "unconfigured" does not occur, because no subscription must be configured.
const (
	Unsubscribed State = iota
	Pending
	Subscribed
)

// Node is a leaf node without its items.
type Node struct {
	Name    string
	Config  Config
	Creator jid.JID // bare; the zero JID when the account is gone
	Created time.Time
	Items   int // how many it has, expired ones included
}

// Standing is what the store knows of an entity at a node.
type Standing struct {
	Affiliation  Affiliation
	Subscription State // the best of those of its JIDs
}

// Found is a node of a list with the standing of who asked for it.
type Found struct {
	Node     Node
	Standing Standing
	Owners   []jid.JID // of a page, where the access model asks for their rosters
}

// NodeQuery says which nodes of a service are wanted: those between After and Before in the order of creation, up to Max from the beginning, or with Last
// from the end backwards.
type NodeQuery struct {
	After, Before string // names of nodes
	Last          bool
	Max           int
}

// Item is a published item.
type Item struct {
	ID        string
	Publisher jid.JID   // bare; the zero JID when it is the owner of the account, or when that account is gone
	Published time.Time // to the microsecond
	Payload   []byte    // one element that declares its namespace, or nothing
}

// Query says which items of a node are wanted. With IDs these alone, in that order, from behind After, up to Max; else all in the order of publishing,
// those of XEP-0059 where After, Before, Last, Index or Max say so.
type Query struct {
	IDs           []string
	After, Before string // ids of items
	Last          bool   // the last page; also with Before
	Index         int    // of the first item; 0 for the beginning
	Max           int    // items at most
	Bytes         int    // of payload at most, but at least one item
	Newest        bool   // from the newest to the oldest
	Names         bool   // the items are wanted without their payloads; not with IDs, Newest or Last
	Since         time.Time
}

// Page is an answer to a Query.
type Page struct {
	Items []Item
	First int  // index of the first one
	Count int  // of all items, with IDs of those of them that there are
	Gone  bool // After or Before names no item (XEP-0059 §2.2)
}

// Subscription is a subscription to a node.
type Subscription struct {
	Node    string // set where subscriptions of many nodes are listed
	JID     jid.JID
	State   State
	Options Options
}

// SubscribedTo is a subscription, and whose node it is to.
type SubscribedTo struct {
	Service jid.JID
	Subscription
}

// Affiliate is an entity with an affiliation.
type Affiliate struct {
	Node        string  // set where affiliations of many nodes are listed
	JID         jid.JID // bare
	Affiliation Affiliation
}

// Store keeps nodes. service is the bare JID of an account, or the domain of a service; a name is any string that is not empty.
type Store interface {
	NodeStore
	ItemStore
	MemberStore
}

// NodeStore keeps nodes and their configuration.
type NodeStore interface {
	// PubSubNode returns a node and the standing of peer, a bare JID, at it. ErrNoNode.
	PubSubNode(ctx context.Context, service jid.JID, name string, peer jid.JID) (Node, Standing, error)
	// PubSubNodes returns the nodes of a service in the order of creation, each with the standing of peer.
	PubSubNodes(ctx context.Context, service, peer jid.JID) ([]Found, error)
	// PubSubNodePage returns some of them, each with its owners too; the last one comes first with Last. ErrNoNode when After or Before is not there.
	PubSubNodePage(ctx context.Context, service, peer jid.JID, q NodeQuery) ([]Found, error)
	// CreatePubSubNode makes a node with its owner, the Creator. ErrExists, ErrMaxNodes, ErrFull, ErrAccount.
	CreatePubSubNode(ctx context.Context, service jid.JID, n Node) error
	// ConfigurePubSubNode replaces the configuration, and removes the oldest items beyond keep. ErrNoNode, ErrFull.
	ConfigurePubSubNode(ctx context.Context, service jid.JID, name string, c Config, keep int) (removed []string, err error)
	// DeletePubSubNode removes a node and everything of it. ErrNoNode.
	DeletePubSubNode(ctx context.Context, service jid.JID, name string) error
}

// ItemStore keeps items.
type ItemStore interface {
	// PublishPubSubItem stores an item as the newest one, replacing one with its id. Beyond keep items, and beyond the bound of the store, the oldest
	// go, or with reject a new one is refused with ErrNodeFull; items published before since go as well. ErrNoNode, ErrFull.
	PublishPubSubItem(ctx context.Context, service jid.JID, name string, it Item, keep int, reject bool, since time.Time) (removed []string, err error)
	// PubSubItems returns items. A node that is not there has none.
	PubSubItems(ctx context.Context, service jid.JID, name string, q Query) (Page, error)
	// RetractPubSubItem removes an item; found is false when there was none. ErrNoNode.
	RetractPubSubItem(ctx context.Context, service jid.JID, name, id string) (found bool, err error)
	// PurgePubSubNode removes all items. ErrNoNode.
	PurgePubSubNode(ctx context.Context, service jid.JID, name string) error
}

// MemberStore keeps affiliations and subscriptions.
type MemberStore interface {
	// PubSubAffiliations returns the affiliations at a node, in the order of their JIDs.
	PubSubAffiliations(ctx context.Context, service jid.JID, name string) ([]Affiliate, error)
	// SetPubSubAffiliation changes an affiliation; None removes it. ErrNoNode, ErrFull, ErrLast.
	SetPubSubAffiliation(ctx context.Context, service jid.JID, name string, who jid.JID, a Affiliation) error
	// PubSubSubscriptions returns the subscriptions to a node, in the order of their JIDs.
	PubSubSubscriptions(ctx context.Context, service jid.JID, name string) ([]Subscription, error)
	// SetPubSubSubscription changes a subscription; Unsubscribed removes it. ErrNoNode, ErrFull.
	SetPubSubSubscription(ctx context.Context, service jid.JID, name string, s Subscription) error
	// PubSubStandings returns the affiliations and subscriptions that a bare JID, with all its resources, has at the nodes of a service.
	PubSubStandings(ctx context.Context, service, peer jid.JID) ([]Affiliate, []Subscription, error)
	// PubSubSubscriptionsOf returns up to limit subscriptions that a bare JID, with all its resources, has at the nodes of accounts and at those of one
	// service, in the order in which the nodes were made.
	PubSubSubscriptionsOf(ctx context.Context, peer, service jid.JID, limit int) ([]SubscribedTo, error)
}
