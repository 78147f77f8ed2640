package main

import (
	"net"
	"os"
)

// notify tells systemd about the state of the service (sd_notify(3)), if it asked to be told.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte(state)); err != nil {
		_ = c.Close()
		return err
	}
	return c.Close()
}
