//go:build !linux

package c2s

import (
	"net"
	"syscall"
	"time"
)

// receive reads what the kernel has; 0 and no error is the end of the connection. more is true when it cannot tell that nothing is left: the
// end of the connection may have come with the same edge of the poller.
func receive(fd uintptr, p []byte) (n int, more bool, err syscall.Errno) {
	n, err = call(func() (int, error) { return syscall.Read(int(fd), p) })
	return n, true, err
}

// nothing reports whether there is nothing to read: elsewhere a read tells.
func nothing(uintptr) bool { return false }

// transmit gives the kernel what it takes.
func transmit(fd uintptr, p []byte) (n int, err syscall.Errno) {
	return call(func() (int, error) { return syscall.Write(int(fd), p) })
}

// call repeats a system call that a signal has interrupted.
func call(f func() (int, error)) (int, syscall.Errno) {
	for {
		n, err := f()
		if err == nil {
			return n, 0
		}
		errno, ok := err.(syscall.Errno)
		if !ok {
			errno = syscall.EIO
		}
		if errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}

// setOptions: only Linux has the options; elsewhere keep-alive and pings find dead peers.
func setOptions(*net.TCPConn, time.Duration) error { return nil }

// reset: elsewhere the read after each read tells.
func (s *socket) reset() bool { return false }
