package router

import "time"

// Description is what an operator is told of a session. What a client says of itself is printable and at most 128 bytes.
type Description struct {
	Resource  string
	Available bool // it has sent presence
	Priority  int8

	// Of the transport; zero where that tells nothing.
	Since      time.Time // when the resource was bound
	Connected  bool      // false while the session waits for its client (XEP-0198)
	Until      time.Time // while it waits: when it ends
	Address    string    // of the client's last connection, "" for one of a process before
	Transport  string    // how that came: "STARTTLS", "TLS", "WebSocket", "HTTP"
	TLS        string    // version and cipher suite of the connection
	Client     string    // name of the user agent among those of the account (auth.ClientID), "" for one without an id
	Software   string
	Device     string
	Managed    bool // stream management (XEP-0198) is on
	Resumable  bool
	Inactive   bool // client state (XEP-0352)
	Queue      int  // stanzas that the client has not acknowledged
	QueueBytes int
	Held       int // stanzas that wait until the client is active
	Outbox     int // bytes that wait to be written
}

// Describe tells what the session is.
func (s *Session) Describe() Description {
	s.mu.Lock()
	d := Description{Resource: s.full.Resourcepart(), Available: s.presence != nil, Priority: s.priority, Connected: true}
	s.mu.Unlock()
	if o, ok := s.out.(interface{ Describe(*Description) }); ok {
		o.Describe(&d)
	}
	return d
}

// Has reports whether s is in the table.
func (r *Router) Has(s *Session) bool {
	for _, o := range r.table.get(s.bareKey).list {
		if o == s {
			return true
		}
	}
	return false
}
