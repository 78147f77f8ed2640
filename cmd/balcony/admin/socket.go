package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

const socketName = "balcony.sock"

// Listen opens the control socket in a data folder that the caller has locked; a socket that an ended process left is replaced.
// Closing the listener removes it.
func Listen(dir string) (net.Listener, error) {
	l, err := listen(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

func listen(dir string) (net.Listener, error) {
	// The socket is made in a folder that nobody else can enter and moved into place when its mode is right.
	private, err := os.MkdirTemp(dir, ".socket-")
	if err != nil {
		return nil, err
	}
	made := filepath.Join(private, socketName)
	var l *net.UnixListener
	err = short(private, func(dir string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, socketName)})
		return err
	})
	if err == nil {
		l.SetUnlinkOnClose(false)
		err = os.Chmod(made, 0o600)
	}
	place := filepath.Join(dir, socketName)
	if err == nil {
		err = os.Rename(made, place)
	}
	err = errors.Join(err, os.RemoveAll(private))
	if err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, err
	}
	return &listener{l, place}, nil
}

type listener struct {
	net.Listener
	path string
}

func (l *listener) Close() error {
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, l.Listener.Close())
	}
	return l.Listener.Close()
}

// connect opens a connection to the server that runs on a data folder.
func connect(ctx context.Context, dir string) (c net.Conn, err error) {
	err = short(dir, func(dir string) (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, "unix", filepath.Join(dir, socketName))
		return err
	})
	return c, err
}

// short calls f with a path of dir that leaves room for a socket's name: the kernel takes addresses of at most 107 bytes (103 on some
// systems). A longer one is reached through a symbolic link.
func short(dir string, f func(dir string) error) error {
	if len(filepath.Join(dir, socketName)) <= 100 {
		return f(dir)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "balcony-")
	if err != nil {
		return err
	}
	link := filepath.Join(tmp, "d")
	if err = os.Symlink(abs, link); err == nil {
		err = f(link)
	}
	return errors.Join(err, os.RemoveAll(tmp))
}
