//go:build !linux

package c2s

import (
	"net"
	"time"
)

// setUserTimeout: only Linux has the option; elsewhere keep-alive and pings find dead peers.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
