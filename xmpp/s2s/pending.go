package s2s

import "sync"

// pending is what is on its way to other servers: how much, whose, and the rows of what has arrived.
type pending struct {
	mu       sync.Mutex
	bytes    int            // guarded by mu, as the rest
	by       map[string]int // bytes of each sender
	finished []int64        // rows that nobody needs any more
}

// maxShare is the part of everything that may wait which one sender may have. chosen: eight who write to dead domains together, not one, keep others out.
const maxShare = 8

// take counts an item, if there is room for it within so many bytes for all.
func (p *pending) take(it *item, most int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	who, size := sender(it), it.stanza.Size()
	if p.bytes+size > most || who != "" && p.by[who] > 0 && p.by[who]+size > most/maxShare {
		return false
	}
	p.count(who, size)
	return true
}

// add counts an item that is there already.
func (p *pending) add(it *item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(sender(it), it.stanza.Size())
}

// count is called with mu held.
func (p *pending) count(who string, size int) {
	p.bytes += size
	if who == "" {
		return
	}
	if p.by == nil {
		p.by = make(map[string]int)
	}
	if p.by[who] += size; p.by[who] == 0 {
		delete(p.by, who)
	}
}

// done counts items no more, and notes their rows.
func (p *pending) done(list []*item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, it := range list {
		if it.over.Swap(true) {
			continue
		}
		p.count(sender(it), -it.stanza.Size())
		if it.row != 0 {
			p.finished = append(p.finished, it.row)
		}
	}
}

// rows takes the rows that nobody needs any more.
func (p *pending) rows() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows := p.finished
	p.finished = nil
	return rows
}

// back returns rows that the store did not take.
func (p *pending) back(rows []int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.finished)+len(rows) <= maxFinished {
		p.finished = append(p.finished, rows...)
	}
}

func (p *pending) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}
