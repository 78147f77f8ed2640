// Package pgtest runs PostgreSQL servers for tests: the real program, started by the test binary on a Unix socket in a temporary
// folder and stopped by its process id.
package pgtest

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq" // the driver of database/sql
)

// startLimit and stopLimit bound how long a server may take. chosen: many times what a loaded machine needs.
const (
	startLimit = 60 * time.Second
	stopLimit  = 30 * time.Second
)

// shared is the server of the test binary, started by the first Start.
var shared struct {
	mu      sync.Mutex
	running bool // Main is at work and will stop it
	server  *Server
	err     error
}

// Main runs the tests and stops the server that Start started. A package that calls Start has a TestMain that calls it.
func Main(m *testing.M) (code int) {
	shared.mu.Lock()
	shared.running = true
	shared.mu.Unlock()
	code = m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.running = false
	if shared.server != nil {
		if err := shared.server.remove(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = max(code, 1)
		}
	}
	return code
}

// Start returns the connection string of a new, empty database on the server that all tests of the binary share. That server does not
// sync. The test fails when PostgreSQL is not installed.
func Start(t testing.TB) (dsn string) {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.running {
		t.Fatal("pgtest.Start needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start(false)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server.Database(t)
}

// Server is a PostgreSQL server of one test.
type Server struct {
	bin, dir  string
	durable   bool
	owner     *syscall.Credential // nil: as the test itself
	databases atomic.Int32
	cmd       *exec.Cmd
	exited    chan error
}

// New starts a server of the test's own, which it may stop and start. durable: with fsync, as in production.
func New(t testing.TB, durable bool) *Server {
	t.Helper()
	s, err := start(durable)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.remove(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Socket is the path of the server's Unix socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// Database creates an empty database and returns its connection string.
func (s *Server) Database(t testing.TB) (dsn string) {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	db, err := sql.Open("postgres", s.dsn("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(ctx, "CREATE DATABASE "+name)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatalf("create database: %v", err)
	}
	return s.dsn(name)
}

func (s *Server) dsn(database string) string {
	return fmt.Sprintf("host=%s port=5432 user=balcony dbname=%s sslmode=disable", s.dir, database)
}

// Stop stops the server: at once, without a checkpoint, as if it had crashed.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop(syscall.SIGQUIT); err != nil { // PostgreSQL: immediate shutdown
		t.Fatal(err)
	}
}

// Start starts the server again after Stop.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

// start makes a cluster and runs its server.
func start(durable bool) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, durable: durable}
	// The path of a Unix socket has at most 107 bytes, so the folder is not in a test's own.
	if s.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		return nil, err
	}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := s.run(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

// binaries finds the folder of the newest server that is installed.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // Debian's place, which is not in PATH
	if err != nil {
		return "", err
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		found = append(found, p)
	}
	if len(found) == 0 {
		return "", errors.New("PostgreSQL is not installed: install Debian's package postgresql")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(strings.TrimPrefix(path, "/usr/lib/postgresql/"), "/")[0]) // elsewhere: 0
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

// create makes the cluster, owned by an unprivileged user: PostgreSQL refuses to run as root.
func (s *Server) create() error {
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return fmt.Errorf("PostgreSQL does not run as root: %w", err)
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return err
		}
		s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, int(uid), int(gid)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	// C.UTF-8 is not "C": a column that forgot its collation shows.
	cmd := s.command(ctx, "initdb", "-D", s.data(), "-U", "balcony", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	dieWithParent(cmd.SysProcAttr)
	return cmd
}

// run starts the server and returns when it accepts connections.
func (s *Server) run() error {
	settings := []string{"-D", s.data(), "-k", s.dir, "-p", "5432", "-c", "listen_addresses=", "-c", "shared_buffers=16MB",
		"-c", "max_connections=60", "-c", "log_checkpoints=off"}
	if s.durable {
		settings = append(settings, "-c", "recovery_init_sync_method=syncfs") // not file by file after a crash
	} else {
		settings = append(settings, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	cmd := s.command(context.Background(), "postgres", settings...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	s.cmd, s.exited = cmd, make(chan error, 1)
	ready := make(chan struct{})
	var log strings.Builder // read after exited
	go func() {
		lines := bufio.NewScanner(stderr)
		for found := false; lines.Scan(); {
			if !found {
				log.WriteString(lines.Text() + "\n")
			}
			if !found && strings.Contains(lines.Text(), "ready to accept connections") {
				found = true
				close(ready)
			}
		}
		_, err := io.Copy(io.Discard, stderr)
		s.exited <- errors.Join(lines.Err(), err, cmd.Wait())
	}()
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-ready:
		return nil
	case err := <-s.exited:
		s.cmd = nil
		return fmt.Errorf("postgres ended: %v\n%s", err, log.String())
	case <-limit.C:
		return errors.Join(errors.New("postgres does not get ready"), s.stop(syscall.SIGQUIT))
	}
}

// stop ends the server, if it runs, and waits for it.
func (s *Server) stop(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-s.exited:
	case <-limit.C:
		err := s.cmd.Process.Kill()
		<-s.exited
		return errors.Join(errors.New("postgres did not stop"), err)
	}
	s.cmd = nil
	return nil
}

// remove stops the server and deletes its files.
func (s *Server) remove() error {
	return errors.Join(s.stop(syscall.SIGQUIT), os.RemoveAll(s.dir))
}
