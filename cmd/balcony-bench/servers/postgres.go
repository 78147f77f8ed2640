package servers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// database is a PostgreSQL server with its defaults, on a Unix socket, in a folder of the run.
type database struct {
	env      *Env
	bin, dir string
}

// newDatabase makes its cluster.
func (e *Env) newDatabase(ctx context.Context, parts ...string) (*database, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian's place, which is not in PATH
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no PostgreSQL below /usr/lib/postgresql (%v)", err)
	}
	d := &database{env: e, bin: filepath.Dir(found[len(found)-1])}
	if d.dir, err = e.folder(parts...); err != nil {
		return nil, err
	}
	return d, d.run(ctx, "initdb", "-D", filepath.Join(d.dir, "data"), "-U", "balcony", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
}

// dsn is the connection string of its database for Balcony.
func (d *database) dsn() string {
	return fmt.Sprintf("host=%s user=balcony dbname=postgres sslmode=disable", d.dir)
}

// tables is the folder of tables and indexes, without the log.
func (d *database) tables() string { return filepath.Join(d.dir, "data", "base") }

// run runs one of PostgreSQL's programs to its end.
func (d *database) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, program), args...)
	cmd.Dir, cmd.Env = d.dir, []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = d.env.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// start runs it until Process.Stop, which is a fast shutdown: with a checkpoint.
func (d *database) start(ctx context.Context) (*Process, error) {
	socket := filepath.Join(d.dir, ".s.PGSQL.5432")
	p, err := d.env.launch(ctx, d.dir, socket, []string{"LC_ALL=C.UTF-8"}, filepath.Join(d.bin, "postgres"), "-D", filepath.Join(d.dir, "data"), "-k", d.dir, "-c", "listen_addresses=")
	if err != nil {
		return nil, err
	}
	p.interrupt = true
	// It listens before it is ready.
	for tries := 0; ; tries++ {
		err := d.run(ctx, "pg_isready", "-q", "-h", d.dir)
		if err == nil {
			return p, nil
		}
		if tries == 100 || ctx.Err() != nil {
			p.Stop()
			return nil, fmt.Errorf("PostgreSQL does not get ready: %w; %s", err, strings.TrimSpace(p.Log()))
		}
		time.Sleep(100 * time.Millisecond)
	}
}
