package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Times that bound a server process. Chosen: ejabberd needs about 4 s to start on the reference machine.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
)

// Process is a running server.
type Process struct {
	Addr      string // its STARTTLS listener
	Direct    string // its listener with direct TLS, "" if it has none
	WebSocket string // its listener with WebSocket over TLS, "" if it has none
	S2S       string // its listener for other servers, "" if it has none
	Pprof     string // host:port of its profiles, "" if it has none
	PID       int

	database  *Process // the database server that it uses, nil for none
	interrupt bool     // SIGINT ends it, where SIGTERM waits for its clients
	cmd       *exec.Cmd
	done      chan struct{} // closed when the process has ended
	log       string
}

// launch starts a server that logs to DIR/output.log and waits until it accepts connections on addr.
func (e *Env) launch(ctx context.Context, dir, addr string, environment []string, argv ...string) (*Process, error) {
	logName := filepath.Join(dir, "output.log")
	out, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}, environment...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own, so that an interrupt at the terminal reaches the driver alone and everything the server started can be ended with it.
	cmd.SysProcAttr = e.attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p := &Process{Addr: addr, PID: cmd.Process.Pid, cmd: cmd, done: make(chan struct{}), log: logName}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	if err := p.accepting(ctx, addr); err != nil {
		p.Stop()
		return nil, fmt.Errorf("%s: %w; the end of %s:\n%s", argv[0], err, logName, tail(logName))
	}
	return p, nil
}

// attributes make a process of the servers' account, in a group of its own.
func (e *Env) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: e.Credential}
}

// webSocket waits until the listener for WebSocket takes connections, which may open later than that of Addr.
func (p *Process) webSocket(ctx context.Context, addr string) (*Process, error) {
	if err := p.accepting(ctx, addr); err != nil {
		p.Stop()
		return nil, fmt.Errorf("%w; the end of %s:\n%s", err, p.log, tail(p.log))
	}
	p.WebSocket = addr
	return p, nil
}

// accepting waits until the listener takes connections.
func (p *Process) accepting(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		network := "tcp"
		if filepath.IsAbs(addr) {
			network = "unix"
		}
		if conn, err := net.Dial(network, addr); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not listening on %s: %w", addr, ctx.Err())
		case <-p.done:
			return errors.New("ended while starting")
		case <-retry.C:
		}
	}
}

// PIDs are the processes whose CPU time is the server's.
func (p *Process) PIDs() []int {
	if p.database != nil {
		return []int{p.PID, p.database.PID}
	}
	return []int{p.PID}
}

// Stop ends the server and its database, gracefully if it can, and waits for them.
func (p *Process) Stop() {
	if p.database != nil {
		defer p.database.Stop()
	}
	end := syscall.SIGTERM
	if p.interrupt {
		end = syscall.SIGINT
	}
	p.cmd.Process.Signal(end)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
	}
	syscall.Kill(-p.PID, syscall.SIGKILL) // the group: what is left of it
	<-p.done
}

// Log is the end of what the server printed.
func (p *Process) Log() string { return tail(p.log) }

// Ended reports whether the process has ended by itself.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func tail(name string) string {
	b, _ := os.ReadFile(name)
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (string, error) {
	list, err := freeAddresses(1)
	if err != nil {
		return "", err
	}
	return list[0], nil
}

// freeAddresses returns n different ones.
func freeAddresses(n int) (list []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // when all are known
		list = append(list, l.Addr().String())
	}
	return list, nil
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
