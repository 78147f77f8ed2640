package servers

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"balcony/cmd/balcony-bench/client"
)

// prosody is Prosody as Debian ships it, without the module that limits rates; generational turns on Lua's generational collector,
// which the manual recommends for busy servers; sqlite keeps archives in SQLite (mod_storage_sql) and not in its internal storage.
type prosody struct {
	env          *Env
	name         string
	generational bool
	sqlite       bool
	dir          string
}

// prosodyConfig has the modules of Debian's prosody.cfg.lua except limits. Arguments: folder, gc line, port, key, certificate, domain, port of HTTPS,
// further modules, lines for the archive, port for other servers.
const prosodyConfig = `-- generated
interfaces = { "127.0.0.1" }
data_path = "%[1]s/data"
pidfile = "%[1]s/prosody.pid"
log = { info = "%[1]s/prosody.log" }
%[2]s
%[9]smodules_enabled = {
	"disco", "roster", "saslauth", "tls", "blocklist", "bookmarks", "carbons", "dialback", "pep", "private", "smacks", "vcard4",
	"vcard_legacy", "csi_simple", "invites", "invites_adhoc", "invites_register", "ping", "register", "time", "uptime", "version",
	"admin_adhoc", "admin_shell", "posix", "websocket",%[8]s
}
c2s_ports = { %[3]s }
c2s_direct_tls_ports = { }
http_ports = { }
https_ports = { %[7]s }
https_interfaces = { "127.0.0.1" }
https_ssl = { key = "%[4]s", certificate = "%[5]s" }
s2s_ports = { %[10]s }
s2s_direct_tls_ports = { }
s2s_secure_auth = false
authentication = "internal_hashed"
ssl = { key = "%[4]s", certificate = "%[5]s" }
VirtualHost "%[6]s"
`

func (p *prosody) Name() string { return p.name }

func (p *prosody) Data() string { return filepath.Join(p.dir, "data") }

// Prepare writes one file per account as mod_auth_internal_hashed and mod_storage_internal keep them, with Prosody's default iteration
// count. All accounts share a salt: the cost for the server is the same, and the driver derives one key.
func (p *prosody) Prepare(_ context.Context, accounts []string) (err error) {
	const salt, iterations = "c2c0a7c2-5a4b-4f0b-9d6b-6a0a0c6d1f10", 10000
	if p.dir, err = p.env.folder(p.name); err != nil {
		return err
	}
	store, err := p.env.folder(p.name, "data", p.env.Domain, "accounts")
	if err != nil {
		return err
	}
	keys, err := client.DeriveKeys("SCRAM-SHA-1", p.env.Password, []byte(salt), iterations)
	if err != nil {
		return err
	}
	record := fmt.Appendf(nil, "return {\n\t[\"iteration_count\"] = %d;\n\t[\"salt\"] = %q;\n\t[\"server_key\"] = %q;\n\t[\"stored_key\"] = %q;\n};\n",
		iterations, salt, hex.EncodeToString(keys.Server), hex.EncodeToString(keys.Stored))
	for _, a := range accounts {
		if err := p.env.write(filepath.Join(store, a+".dat"), record); err != nil {
			return err
		}
	}
	return nil
}

func (p *prosody) Start(ctx context.Context) (*Process, error) {
	free, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	addr, https, s2s := free[0], free[1], free[2]
	gc := ""
	if p.generational {
		gc = `gc = { mode = "generational" }`
	}
	further, archive := "", ""
	if p.env.Archive {
		further = ` "mam"` // with its defaults: everything, in the internal storage
		archive = "max_archive_query_results = 250\n"
		if p.sqlite {
			archive += `storage = { archive = "sql" }` + "\n" + `sql = { driver = "SQLite3", database = "prosody.sqlite" }` + "\n"
		}
	}
	file := filepath.Join(p.dir, "prosody.cfg.lua")
	text := fmt.Appendf(nil, prosodyConfig, p.dir, gc, port(addr), p.env.Key, p.env.Cert, p.env.Domain, port(https), further, archive, port(s2s))
	if err := p.env.write(file, text); err != nil {
		return nil, err
	}
	os.Remove(filepath.Join(p.dir, "prosody.pid"))
	process, err := p.env.launch(ctx, p.dir, addr, nil, "/usr/bin/prosody", "--config", file, "-F")
	if err != nil {
		return nil, err
	}
	process.S2S = s2s
	return process.webSocket(ctx, https)
}
