package servers

import (
	"context"
	"os"
	"path/filepath"
)

// relayServer is the floor: this binary run as `balcony-bench relay`.
type relayServer struct {
	env  *Env
	dir  string
	self string
}

func (r *relayServer) Data() string { return "" }

func (r *relayServer) Name() string { return "relay" }

// Prepare copies this binary to where the servers' account can run it. The relay takes any account.
func (r *relayServer) Prepare(context.Context, []string) (err error) {
	if r.dir, err = r.env.folder("relay"); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	r.self = filepath.Join(r.dir, "balcony-bench")
	return os.WriteFile(r.self, b, 0o755)
}

func (r *relayServer) Start(ctx context.Context) (*Process, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return r.env.launch(ctx, r.dir, addr, nil, r.self, "relay", "-listen", addr, "-cert", r.env.Cert, "-key", r.env.Key)
}
