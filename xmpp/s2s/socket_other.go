//go:build !linux

package s2s

import "net"

// unacknowledged: only Linux tells.
func unacknowledged(*net.TCPConn) bool { return false }
