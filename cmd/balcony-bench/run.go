package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"balcony/cmd/balcony-bench/client"
	"balcony/cmd/balcony-bench/load"
	"balcony/cmd/balcony-bench/report"
	"balcony/cmd/balcony-bench/servers"
)

// run is one run of the benchmark. It is used by one goroutine.
type run struct {
	*settings
	env      *servers.Env
	dialer   client.Dialer
	report   report.Run
	failures int
}

// all prepares the servers and goes through the scenarios, the servers of a repetition one after the other (A B C A B C …), so that
// noise that comes and goes hits all of them.
func (b *run) all(ctx context.Context, scenarios []load.Scenario) error {
	var names []string
	for _, sc := range scenarios {
		names = append(names, sc.Accounts(&b.Options)...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var prepared []servers.Server
	for _, name := range b.servers {
		s, err := servers.New(name, b.env)
		if err != nil {
			return err
		}
		log.Printf("%s: preparing %d accounts", name, len(names))
		if err := s.Prepare(ctx, names); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
		prepared = append(prepared, s)
	}
	for _, sc := range scenarios {
		for rep := range b.repetitions {
			for _, s := range prepared {
				if s.Name() == "relay" && !sc.Relay || sc.Only != "" && sc.Only != s.Name() || servers.ForArchive(s.Name()) && !sc.Archived() {
					continue
				}
				sample := report.Sample{Server: s.Name(), Scenario: sc.Name, Repetition: rep}
				var err error
				if sample.Metrics, err = b.measure(ctx, s, sc, nil); ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					sample.Error = err.Error()
					b.failures++
				}
				b.report.Samples = append(b.report.Samples, sample)
				log.Printf("%s, repetition %d, %s: %s", sc.Name, rep+1, s.Name(), summary(sample))
			}
		}
	}
	if b.profile == "" {
		return nil
	}
	i := slices.IndexFunc(prepared, func(s servers.Server) bool { return s.Name() == "balcony" })
	if i < 0 {
		return fmt.Errorf("-profile needs balcony among the servers")
	}
	return b.profiles(ctx, prepared[i], scenarios)
}

// summary is the line that shows progress.
func summary(s report.Sample) string {
	if s.Error != "" {
		return "FAILED: " + s.Error
	}
	text := ""
	for i, m := range s.Metrics {
		if i > 0 {
			text += "; "
		}
		text += fmt.Sprintf("%s %.4g", m.Key, m.Value)
	}
	return text
}

// measure starts a server, runs a scenario against it, and stops it.
func (b *run) measure(ctx context.Context, s servers.Server, sc load.Scenario, onLoad func(*servers.Process, int)) ([]load.Metric, error) {
	b.env.Archive = sc.Archived()
	p, err := s.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { p.Stop() }()
	dialer := b.dialer
	dialer.Address = p.Addr
	r := &load.Run{Options: b.Options, Dialer: &dialer, PIDs: p.PIDs(), Rate: sc.Rate, Direct: p.Direct, WebSocket: p.WebSocket, S2S: p.S2S,
		Certificate: b.env.Pair}
	r.Restart = func(ctx context.Context) error {
		_, err := r.Disk(ctx)
		return err
	}
	r.Disk = func(ctx context.Context) (size int64, err error) {
		p.Stop()
		if size, err = servers.Size(s.Data()); err != nil {
			return 0, err
		}
		next, err := s.Start(ctx)
		if err != nil {
			return 0, err
		}
		p, dialer.Address, r.PIDs, r.Direct = next, next.Addr, next.PIDs(), next.Direct
		return size, nil
	}
	if onLoad != nil {
		r.OnLoad = func(seconds int) { onLoad(p, seconds) }
	}
	metrics, err := sc.Run(ctx, r)
	if err != nil && p.Ended() {
		err = fmt.Errorf("%w; the server ended:\n%s", err, p.Log())
	}
	return metrics, err
}

// profiles runs the scenarios once more against Balcony and fetches CPU and heap profiles under load, and heap and goroutine profiles and the memory
// statistics of sessions at rest. These runs do not count.
func (b *run) profiles(ctx context.Context, s servers.Server, scenarios []load.Scenario) error {
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
	}
	b.env.Profile = true
	defer func() { b.env.Profile = false }()
	for _, sc := range scenarios {
		n := 0
		var fetching sync.WaitGroup
		_, err := b.measure(ctx, s, sc, func(p *servers.Process, seconds int) {
			n++
			name := filepath.Join(b.profile, fmt.Sprintf("%s-%d", sc.Name, n))
			fetch := func(query, suffix string) {
				if err := fetchProfile(ctx, "http://"+p.Pprof+"/debug/pprof/"+query, name+"."+suffix); err != nil {
					log.Printf("%s: %v", sc.Name, err)
				}
			}
			if seconds == 0 {
				fetch("goroutine", "goroutine")
				fetch("heap", "heap")
				fetch("heap?debug=1", "memstats")
				return
			}
			fetching.Go(func() {
				// One second less than the load, so that the heap is read while it still runs.
				fetch(fmt.Sprintf("profile?seconds=%d", max(1, seconds-1)), "cpu")
				fetch("heap", "heap")
			})
		})
		fetching.Wait()
		if err != nil {
			return fmt.Errorf("profile of %s: %w", sc.Name, err)
		}
		log.Printf("%s: profiles are in %s", sc.Name, b.profile)
	}
	return nil
}

// fetchProfile stores what a URL answers in a file.
func fetchProfile(ctx context.Context, url, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
