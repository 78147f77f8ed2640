package c2s

import (
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receive reads what the kernel has; 0 and no error is the end of the connection. more is false when nothing is left, not even that end: the
// kernel says so with the bytes (TCP_INQ), which saves the read that would only find nothing. The socket does not block, so the calls are raw: they need no
// word with the scheduler, which would wake its monitor thread for each message of a quiet server.
func receive(fd uintptr, p []byte) (n int, more bool, err syscall.Errno) {
	var control [controlSize]byte
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov, Control: &control[0]}
	msg.SetIovlen(1)
	for {
		msg.SetControllen(len(control))
		r, _, e := syscall.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), 0)
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return 0, false, e
		}
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		if uint64(msg.Controllen) < unix.SizeofCmsghdr+4 || h.Level != unix.SOL_TCP || h.Type != unix.TCP_CM_INQ {
			return int(r), true, 0
		}
		// tcp(7), net/ipv4/tcp.c tcp_inq_hint: with nothing left it is 1 when the end has come.
		return int(r), *(*int32)(unsafe.Pointer(&control[unix.SizeofCmsghdr])) != 0, 0
	}
}

// nothing reports whether there is nothing to read, neither bytes nor the end.
func nothing(fd uintptr) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN} // POLLERR and POLLHUP come unasked
	var now unix.Timespec
	n, _, e := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return e == 0 && n == 0
}

// controlSize is the space of one control message with an int.
const controlSize = unix.SizeofCmsghdr + 8

// transmit gives the kernel what it takes. It is send(2), which has less to do than write(2) has for any file.
func transmit(fd uintptr, p []byte) (n int, err syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}

// reset reports whether the connection is over although no read has said so: a reset that came with the last bytes has no edge of its own.
func (s *socket) reset() (over bool) {
	_ = s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // POLLERR and POLLHUP come unasked
		n, err := unix.Poll(p, 0)
		over = err == nil && n > 0 && s.waiting.Load()
	})
	return over
}

// setOptions bounds how long sent bytes may stay unacknowledged (RFC 5482), and asks for TCP_INQ, without which receive works too.
func setOptions(c *net.TCPConn, unacknowledged time.Duration) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_INQ, 1)
	})
	if err != nil {
		return err
	}
	return serr
}
