package servers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"balcony/cmd/balcony-bench/client"
	"balcony/storage"
	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// balcony is this module's server with its defaults, except the rate limits of sessions and of other servers: the others run without theirs. Its database is SQLite, or a
// PostgreSQL server of its own.
type balcony struct {
	env      *Env
	name     string
	postgres bool
	dir      string
	binary   string
	database *database // nil for SQLite
}

// balconyConfig: arguments are the data folder, domain, certificate, key, c2s address, that with direct TLS and that with HTTPS, whether messages are
// archived, the driver and the DSN of the database, and the address for other servers, which need no valid certificate with any of the servers.
const balconyConfig = `# generated
data = %[1]q

[[domain]]
name = %[2]q
certificate = %[3]q
key = %[4]q

[listen]
c2s = [%[5]q]
c2s_tls = [%[6]q]
s2s = [%[11]q]
s2s_tls = []
http = []
https = [%[7]q]
component = []

[archive]
enabled = %[8]t

[storage]
driver = %[9]q
dsn = %[10]q

[s2s]
auth = "dialback"

[limits]
client_rate = "off"
server_rate = "off"
`

func (b *balcony) Name() string { return b.name }

func (b *balcony) Data() string {
	if b.database != nil {
		return b.database.tables()
	}
	return filepath.Join(b.dir, "data")
}

// storage is where it keeps its data.
func (b *balcony) storage() storage.Config {
	if b.database != nil {
		return storage.Config{Driver: "postgres", DSN: b.database.dsn()}
	}
	return storage.DefaultConfig()
}

// Prepare builds the server, unless it is given, and creates the accounts in its database. All accounts share the salt and thereby the
// keys: the cost for the server is the same, and the driver derives one.
func (b *balcony) Prepare(ctx context.Context, accounts []string) (err error) {
	if b.dir, err = b.env.folder(b.name); err != nil {
		return err
	}
	if b.postgres {
		if b.database, err = b.env.newDatabase(ctx, b.name, "postgres"); err != nil {
			return err
		}
		p, err := b.database.start(ctx)
		if err != nil {
			return err
		}
		defer p.Stop()
	}
	b.binary = filepath.Join(b.dir, "balcony")
	if b.env.Balcony == "" {
		build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "balcony/cmd/balcony")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build balcony: %w\n%s", err, out)
		}
	} else {
		// A copy, where the servers' account can run it.
		program, err := os.ReadFile(b.env.Balcony)
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.binary, program, 0o755); err != nil {
			return err
		}
	}
	data, err := b.env.folder(b.name, "data")
	if err != nil {
		return err
	}
	if err := b.create(ctx, data, accounts); err != nil {
		return err
	}
	return filepath.WalkDir(data, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return b.env.own(name)
	})
}

func (b *balcony) create(ctx context.Context, data string, accounts []string) (err error) {
	salt, iterations := []byte("balcony-bench salt"), 10000
	var verifiers []auth.Verifier
	for _, mechanism := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		keys, err := client.DeriveKeys(mechanism, b.env.Password, salt, iterations)
		if err != nil {
			return err
		}
		verifiers = append(verifiers, auth.Verifier{Mechanism: mechanism, Salt: salt, Iterations: iterations, StoredKey: keys.Stored, ServerKey: keys.Server})
	}
	db, err := storage.Open(ctx, b.storage(), data, storage.DefaultLimits(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// Many at a time, so that they share transactions.
	failed := make(chan error, len(accounts))
	slots := make(chan struct{}, 64)
	var wg sync.WaitGroup
	for _, a := range accounts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			j, err := jid.New(a, b.env.Domain, "")
			if err == nil {
				err = db.CreateAccount(ctx, j, verifiers)
			}
			if err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

func (b *balcony) Start(ctx context.Context) (*Process, error) {
	free, err := freeAddresses(4)
	if err != nil {
		return nil, err
	}
	addr, direct, https, s2s := free[0], free[1], free[2], free[3]
	file := filepath.Join(b.dir, "balcony.toml")
	text := fmt.Appendf(nil, balconyConfig, filepath.Join(b.dir, "data"), b.env.Domain, b.env.Cert, b.env.Key, addr, direct, https, b.env.Archive,
		b.storage().Driver, b.storage().DSN, s2s)
	if err := b.env.write(file, text); err != nil {
		return nil, err
	}
	profiles := ""
	var environment []string
	if b.env.Profile {
		if profiles, err = freeAddress(); err != nil {
			return nil, err
		}
		environment = []string{"BALCONY_PPROF=" + profiles}
	}
	var database *Process
	if b.database != nil {
		if database, err = b.database.start(ctx); err != nil {
			return nil, err
		}
	}
	p, err := b.env.launch(ctx, b.dir, addr, environment, b.binary, "serve", "--config", file)
	if err != nil {
		if database != nil {
			database.Stop()
		}
		return nil, err
	}
	p.Pprof, p.Direct, p.WebSocket, p.S2S, p.database = profiles, direct, https, s2s, database
	return p, nil
}
