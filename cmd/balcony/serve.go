package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"balcony/cmd/balcony/admin"
	"balcony/cmd/balcony/certs"
	"balcony/cmd/balcony/config"
	"balcony/cmd/balcony/server"
)

// shutdownTime is how long streams and requests have to end. The process ends within 10 s of the signal.
const shutdownTime = 9 * time.Second

// service is a running server with what belongs to the process around it.
type service struct {
	// Static after start.
	path   string // of the configuration, as it was given
	log    *slog.Logger
	level  *slog.LevelVar
	lock   *admin.Lock
	certs  *certs.Set
	server *server.Server
	admin  *admin.Server
	addrs  map[string][]net.Addr // of the open listeners

	serving sync.WaitGroup

	// Owned by run.
	cfg *config.Config
}

// serve runs the server until SIGTERM or SIGINT.
func serve(path string, s std) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	log, level := newLog(cfg.Log, s.err)
	v := &service{path: path, log: log, level: level, cfg: cfg}
	if err := v.start(); err != nil {
		return err
	}
	if _, err := fmt.Fprint(s.out, v.greeting()); err != nil {
		log.Warn("standard output", "err", err)
	}
	v.tell("READY=1")
	v.run(signals)
	v.tell("STOPPING=1")
	return v.stop(signals)
}

// start opens everything; on an error it closes what it had opened.
func (v *service) start() (err error) {
	if v.lock, err = acquire(v.cfg.Data); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.lock.Release())
		}
	}()
	if v.certs, err = certs.Load(v.cfg); err != nil {
		return err
	}
	v.warn()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if v.server, err = server.New(ctx, v.cfg, v.certs, v.log, version()); err != nil {
		return err
	}
	v.admin = admin.NewServer(v.server.Accounts(), v.server.Federation(), v.log)
	if err := v.listen(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		return errors.Join(err, v.close(ctx))
	}
	return nil
}

// acquire locks the data folder. It waits a while for a command that is changing accounts, not for another server.
func acquire(data string) (*admin.Lock, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		lock, err := admin.Acquire(data, admin.Serving)
		if use := (*admin.InUseError)(nil); errors.As(err, &use) && use.As == admin.Changing && pause(ctx) {
			continue
		}
		return lock, err
	}
}

// listen opens the listeners.
func (v *service) listen() error {
	socket, err := admin.Listen(v.cfg.Data)
	if err != nil {
		return err
	}
	v.goServe("control socket", func() error { return v.admin.Serve(socket) })
	if err := v.server.Start(); err != nil {
		return err
	}
	v.addrs = v.server.Addrs()
	return nil
}

// goServe runs a listener until it is closed.
func (v *service) goServe(name string, serve func() error) {
	v.serving.Go(func() {
		if err := serve(); err != nil {
			v.log.Error("listener ended", "listener", name, "err", err)
		}
	})
}

// greeting says what the server listens on and how to add an account.
func (v *service) greeting() string {
	var names, listeners []string
	for _, d := range v.cfg.Domains {
		names = append(names, d.Name)
	}
	for _, name := range []string{"c2s", "c2s_tls", "s2s", "s2s_tls", "http", "https", "component"} {
		for _, a := range v.addrs[name] {
			listeners = append(listeners, name+" "+a.String())
		}
	}
	option := ""
	if v.path != "" {
		option = "--config " + v.path + " "
	}
	return fmt.Sprintf("balcony %s serves %s\nlistening on %s\nadd an account: balcony user add %syou@%s\n",
		version(), strings.Join(names, ", "), strings.Join(listeners, ", "), option, names[0])
}

// warn logs what an operator should know about the configuration in use.
func (v *service) warn() {
	for _, w := range v.certs.Warnings() {
		v.log.Warn(w)
	}
}

// run waits for a signal to stop, and reloads on the others.
func (v *service) run(signals <-chan os.Signal) {
	// Once a day certificates are read again: self-signed ones are renewed, and others that were replaced are taken.
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		select {
		case <-daily.C:
			if err := v.certs.Reload(v.cfg); err != nil {
				v.failed("certificates not reloaded, the old ones stay", err)
			}
			for _, w := range v.certs.Warnings() {
				v.log.Warn(w)
			}
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				v.log.Info("stopping", "signal", sig.String())
				return
			}
			v.reload()
		}
	}
}

// reload reads the configuration and the certificates again. A configuration with errors changes nothing.
func (v *service) reload() {
	const failed = "configuration not reloaded, the old one stays"
	next, err := config.Load(v.path)
	if err == nil {
		_, err = certs.Check(next) // with the lines of the file; below it is the merged configuration
	}
	if err != nil {
		v.failed(failed, err)
		return
	}
	merged, changes := v.cfg.Reload(next)
	if err := v.certs.Reload(merged); err != nil {
		v.failed(failed, err)
		return
	}
	if err := v.server.Reload(merged); err != nil {
		v.failed(failed, errors.Join(err, v.certs.Reload(v.cfg)))
		return
	}
	v.cfg = merged
	setLevel(v.level, merged.Log)
	for _, c := range changes {
		log := v.log.Info
		if c.Effect == config.Restart {
			log = v.log.Warn
		}
		log("configuration changed", "key", c.Key, "effect", string(c.Effect))
	}
	v.log.Info("configuration and certificates reloaded", "changes", len(changes))
	v.warn()
}

func (v *service) failed(what string, err error) {
	for _, e := range each(err) {
		v.log.Error(what, "err", e)
	}
}

// stop ends everything. A second signal ends it at once.
func (v *service) stop(signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- v.close(ctx) }()
	late := time.NewTimer(shutdownTime + 500*time.Millisecond)
	defer late.Stop()
	for {
		select {
		case err := <-done:
			var failures []error
			for _, e := range each(err) {
				if errors.Is(e, context.DeadlineExceeded) || errors.Is(e, context.Canceled) {
					// Not all said goodbye; nothing that was acknowledged depends on it.
					v.log.Warn("some connections were cut", "err", e)
				} else if e != nil {
					failures = append(failures, e)
				}
			}
			v.log.Info("stopped")
			return errors.Join(append(failures, v.lock.Release())...)
		case <-late.C:
			v.log.Error("stopped before everything had ended: the database does not answer")
			return nil
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				cancel()
			}
		}
	}
}

// close closes the listeners and ends what they serve, then the server.
func (v *service) close(ctx context.Context) error {
	err := errors.Join(v.admin.Shutdown(ctx), v.server.Shutdown(ctx))
	v.serving.Wait()
	return err
}

func (v *service) tell(state string) {
	if err := notify(state); err != nil {
		v.log.Warn("notify the service manager", "err", err)
	}
}
