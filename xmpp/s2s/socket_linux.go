package s2s

import (
	"net"

	"golang.org/x/sys/unix"
)

// unacknowledged reports whether the peer's machine has not acknowledged everything that was written: tcp(7), SIOCOUTQ.
func unacknowledged(c *net.TCPConn) (waits bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		waits = err == nil && n > 0
	})
	return waits
}
