package push

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

const (
	loadTime = 5 * time.Second // chosen: for the database; meanwhile other news wait in the queue
	busyWait = time.Second     // chosen: until a device tries again whose service has enough to do
)

// Run sends notifications until ctx ends and every notification under way has ended. What is to be told then is lost: the first message
// was told at once, and the next one will be. Call it once, after Register.
func (m *Module) Run(ctx context.Context) {
	d := &dispatcher{m: m, schedule: schedule{window: m.cfg.Window}, devices: make(map[string][]*device), services: make(map[string]int),
		order: list.New(), results: make(chan result, m.bounds.inFlight)}
	defer d.publishing.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-m.events:
			d.handle(ctx, e)
		case r := <-d.results:
			d.result(r, time.Now())
		case <-timer.C:
		}
		d.send(ctx, time.Now())
		if at, ok := d.schedule.next(); ok {
			timer.Reset(time.Until(at))
		}
		if n := m.dropped.Swap(0); n > 0 {
			m.log.Warn("push notifications dropped", "count", n)
		}
	}
}

// dispatcher is the state of Run, which alone uses it.
type dispatcher struct {
	m          *Module
	schedule   schedule
	devices    map[string][]*device // by bare JID
	order      *list.List           // of *device, the one that had news last at the end
	services   map[string]int       // notifications under way, by the service's domain
	inFlight   int                  // all of them
	results    chan result          // room for all that are under way
	publishing sync.WaitGroup
}

// result is the end of a notification.
type result struct {
	device  *device
	told    summary
	outcome outcome
}

// handle takes an event.
func (d *dispatcher) handle(ctx context.Context, e event) {
	key := e.account.String()
	if e.returned {
		for _, v := range d.devices[key] {
			if v.resource == e.resource {
				v.returned()
				d.schedule.update(v)
			}
		}
		return
	}
	all, err := d.load(ctx, e.account)
	if err != nil {
		d.m.dropped.Add(1)
	}
	for _, r := range all {
		if e.resource == "" && d.m.there(e.account, r.Resource, true) || e.resource != "" && e.resource != r.Resource {
			continue
		}
		v := d.device(key, e.account, r)
		if v == nil {
			d.m.dropped.Add(1)
			continue
		}
		v.tell(e.news)
		d.schedule.update(v)
	}
}

// load returns the registrations of an account.
func (d *dispatcher) load(ctx context.Context, account jid.JID) ([]Registration, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	all, err := d.m.registrations(ctx, account)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		d.m.log.Error("load push registrations", "account", account.String(), "err", err)
	}
	return all, err
}

// there reports whether a device has a session that can be reached. bound is the answer for a session while nobody knows that.
func (m *Module) there(account jid.JID, resource string, bound bool) bool {
	for _, s := range m.server.Sessions(account) {
		if s.JID().Resourcepart() == resource {
			return m.reachable(s, bound)
		}
	}
	return false
}

func (m *Module) reachable(s xmpp.Session, bound bool) bool {
	if m.reach == nil {
		return bound
	}
	return m.reach.Reachable(s)
}

// device is the state of a registration; nil when there are too many that have something to be told.
func (d *dispatcher) device(key string, account jid.JID, r Registration) *device {
	v := d.find(key, r)
	if v == nil {
		if d.order.Len() >= d.m.bounds.devices && !d.forgetOne() {
			return nil
		}
		v = &device{account: account, service: r.Service, node: r.Node, index: -1}
		v.place = d.order.PushBack(v)
		d.devices[key] = append(d.devices[key], v)
	}
	d.order.MoveToBack(v.place)
	v.adopt(r)
	return v
}

func (d *dispatcher) find(key string, r Registration) *device {
	for _, v := range d.devices[key] {
		if v.node == r.Node && v.service.Equal(r.Service) {
			return v
		}
	}
	return nil
}

// forgetOne drops the state of a device that has had no news for the longest time.
func (d *dispatcher) forgetOne() bool {
	const look = 32 // chosen: so many that wait for their turn are passed over
	e := d.order.Front()
	for range look {
		if e == nil {
			return false
		}
		if v := e.Value.(*device); v.priority == none && !v.inFlight {
			d.forget(v)
			return true
		}
		e = e.Next()
	}
	return false
}

func (d *dispatcher) forget(v *device) {
	v.priority = none
	d.schedule.update(v)
	d.order.Remove(v.place)
	key := v.account.String()
	list := d.devices[key]
	for i, o := range list {
		if o == v {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if d.devices[key] = list; len(list) == 0 {
		delete(d.devices, key)
	}
}

// send starts the notifications that are due.
func (d *dispatcher) send(ctx context.Context, now time.Time) {
	for {
		at, ok := d.schedule.next()
		if !ok || at.After(now) {
			return
		}
		v := d.schedule.list[0]
		domain := v.service.Domainpart()
		if d.inFlight >= d.m.bounds.inFlight || d.services[domain] >= d.m.bounds.perService {
			v.notBefore = now.Add(busyWait)
			d.schedule.update(v)
			continue
		}
		if !d.start(ctx, v, now) {
			return // the events first
		}
	}
}

// start sends a device's notification, unless it is not to be sent any more. false when the database fails.
func (d *dispatcher) start(ctx context.Context, v *device, now time.Time) bool {
	r, ok, err := d.registration(ctx, v)
	switch {
	case err != nil:
		v.notBefore = now.Add(busyWait)
		d.schedule.update(v)
		return false
	case !ok:
		d.forget(v) // XEP-0357 §6: "the server MUST NOT attempt publishing" to what is not enabled
		return true
	}
	v.adopt(r)
	if d.m.there(v.account, v.resource, false) {
		v.returned()
		d.schedule.update(v)
		return true
	}
	told := summary{priority: v.priority, count: v.count, last: v.last}
	v.priority, v.inFlight, v.told = none, true, now
	d.schedule.update(v)
	domain := v.service.Domainpart()
	d.services[domain]++
	d.inFlight++
	failures := v.failures
	d.publishing.Go(func() {
		d.results <- result{v, told, d.m.publish(ctx, v.account, r, told, failures)}
	})
	return true
}

// registration is the present one of a device.
func (d *dispatcher) registration(ctx context.Context, v *device) (r Registration, ok bool, err error) {
	all, err := d.load(ctx, v.account)
	for _, r := range all {
		if r.Node == v.node && r.Service.Equal(v.service) {
			return r, true, nil
		}
	}
	return Registration{}, false, err
}

// result takes the end of a notification.
func (d *dispatcher) result(r result, now time.Time) {
	v := r.device
	v.inFlight = false
	d.inFlight--
	domain := v.service.Domainpart()
	if d.services[domain]--; d.services[domain] == 0 {
		delete(d.services, domain)
	}
	switch r.outcome {
	case accepted:
		v.failures = 0
	case failed:
		v.fail(r.told, now)
	case refused:
		d.forget(v)
		return
	}
	d.schedule.update(v)
}
