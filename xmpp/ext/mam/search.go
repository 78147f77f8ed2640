package mam

import (
	"context"
	"time"
)

const (
	indexEvery   = time.Second // chosen: many messages share a transaction; a search has those that are not indexed yet indexed first
	indexPortion = 100         // chosen: messages of one transaction; about ten milliseconds, so that nobody waits long for the one before
)

// searches are those of the domains whose archives are searched.
func (m *Module) searches(domains []string) (on []string) {
	for _, d := range domains {
		if p := m.cfg.policy(d); p.Enabled && p.Search {
			on = append(on, d)
		}
	}
	return on
}

// Prepare tells the store which of the domains are searched. Before Index and before the first query.
func (m *Module) Prepare(ctx context.Context, domains []string) error {
	return m.store.SetSearch(ctx, m.searches(domains))
}

// Index has messages indexed for searches until ctx ends, those first that were archived when a domain had no search yet.
func (m *Module) Index(ctx context.Context, domains []string) {
	domains = m.searches(domains)
	if len(domains) == 0 {
		return
	}
	waiting := make(map[string]bool)
	for _, d := range domains {
		if !m.store.Searched(d) {
			waiting[d] = true
			m.log.Info("index archives for searches", "domain", d)
		}
	}
	t := time.NewTicker(indexEvery)
	defer t.Stop()
	for {
		// What has come in the last second is left: the entries of its recipients may be on their way.
		upTo := m.store.LastOrder()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if err := m.index(ctx, domains, upTo); err != nil && ctx.Err() == nil {
			m.log.Error("index archives", "err", err) // the next round goes on
		}
		for d := range waiting {
			if m.store.Searched(d) {
				delete(waiting, d)
				m.log.Info("archives can be searched", "domain", d)
			}
		}
	}
}

// index works at most half of the time: old archives are large, and there are others to serve. One domain's does not keep the others from what is new.
func (m *Module) index(ctx context.Context, domains []string, upTo int64) error {
	for {
		start := time.Now()
		behind := false
		for _, d := range domains {
			more, err := m.store.IndexArchive(ctx, d, upTo, indexPortion)
			if err != nil {
				return err
			}
			behind = behind || more
		}
		if !behind {
			return nil
		}
		select {
		case <-time.After(time.Since(start)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
