package admin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Role is what a process holds the data folder for.
type Role string

// The roles.
const (
	Serving  Role = "serve" // until it ends; it opens the control socket
	Changing Role = "user"  // for a moment, to change accounts without a server
)

// InUseError says that another process holds the data folder.
type InUseError struct {
	Dir string
	PID int // 0 when it is not known
	As  Role
}

func (e *InUseError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("the data folder %s is in use by another balcony", e.Dir)
	}
	return fmt.Sprintf("the data folder %s is in use by another balcony (process %d)", e.Dir, e.PID)
}

// Lock is a lock on a data folder. It ends with the process, however that ends.
type Lock struct{ f *os.File }

// Acquire locks a data folder, which it makes with mode 0700 if it is missing. An *InUseError says that another process has it.
func Acquire(dir string, as Role) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "balcony.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, holder(f, dir)
		}
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d %s\n", os.Getpid(), as)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", errors.Join(err, f.Close()))
	}
	return &Lock{f}, nil
}

// holder reads who has the lock. It may not have written that yet.
func holder(f *os.File, dir string) *InUseError {
	e := &InUseError{Dir: dir}
	b := make([]byte, 64)
	n, _ := f.ReadAt(b, 0)
	pid, role, _ := strings.Cut(strings.TrimSpace(string(b[:n])), " ")
	e.PID, _ = strconv.Atoi(pid)
	e.As = Role(role)
	return e
}

// Release gives the data folder free. The file stays: removing it could take it from under a process that just opened it.
func (l *Lock) Release() error { return l.f.Close() }
