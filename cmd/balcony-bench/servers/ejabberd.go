package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// ejabberd is ejabberd as Debian ships it, without shapers, and without the listeners and modules that only exist for other protocols
// or that count presence subscriptions, and with Prosody's backlog of connections (else logins wait for retransmitted SYNs). The Erlang VM does not busy-wait.
//
// Archives are in Mnesia, its default, or with sqlite in SQLite (sql_type: sqlite).
type ejabberd struct {
	env    *Env
	name   string
	sqlite bool
	dir    string
	api    string // URL of mod_http_api, with which accounts are created
}

// ejabberdConfig follows Debian's ejabberd.yml. Arguments: domain, PEM file, c2s port, API port, port of HTTPS, further modules, port for other servers.
const ejabberdConfig = `# generated
loglevel: info
log_rotate_count: 0
hosts:
  - %[1]q
certfiles:
  - %[2]q
define_macro:
  'TLS_CIPHERS': "HIGH:!aNULL:!eNULL:!3DES:@STRENGTH"
  'TLS_OPTIONS':
    - "no_sslv3"
    - "no_tlsv1"
    - "no_tlsv1_1"
    - "cipher_server_preference"
    - "no_compression"
c2s_ciphers: 'TLS_CIPHERS'
c2s_protocol_options: 'TLS_OPTIONS'
listen:
  -
    port: %[3]s
    ip: "127.0.0.1"
    module: ejabberd_c2s
    backlog: 128
    max_stanza_size: 262144
    shaper: none
    access: all
    starttls_required: true
    protocol_options: 'TLS_OPTIONS'
  -
    port: %[4]s
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers:
      /api: mod_http_api
  -
    port: %[5]s
    ip: "127.0.0.1"
    module: ejabberd_http
    backlog: 128
    tls: true
    protocol_options: 'TLS_OPTIONS'
    request_handlers:
      /xmpp-websocket: ejabberd_http_ws
  -
    port: %[7]s
    ip: "127.0.0.1"
    module: ejabberd_s2s_in
    max_stanza_size: 524288
s2s_use_starttls: required
disable_sasl_mechanisms:
  - "digest-md5"
  - "X-OAUTH2"
auth_password_format: scram
acl:
  loopback:
    ip:
      - 127.0.0.0/8
api_permissions:
  "accounts":
    who:
      access:
        allow:
          - acl: loopback
    what:
      - register
modules:
  mod_adhoc: {}
  mod_admin_extra: {}
  mod_announce: {}
  mod_avatar: {}
  mod_blocking: {}
  mod_caps: {}
  mod_carboncopy: {}
  mod_client_state: {}
  mod_configure: {}
  mod_disco: {}
  mod_fail2ban: {}
  mod_http_api: {}
  mod_last: {}
%[6]s  mod_muc:
    default_room_options:
      mam: true
  mod_muc_admin: {}
  mod_offline: {}
  mod_ping: {}
  mod_privacy: {}
  mod_private: {}
  mod_pubsub:
    plugins:
      - flat
      - pep
    force_node_config:
      "eu.siacs.conversations.axolotl.*":
        access_model: open
      storage:bookmarks:
        access_model: whitelist
  mod_push: {}
  mod_push_keepalive: {}
  mod_s2s_dialback: {}
  mod_roster:
    versioning: true
  mod_shared_roster: {}
  mod_sic: {}
  mod_stream_mgmt:
    resend_on_timeout: if_offline
  mod_vcard:
    search: false
  mod_vcard_xupdate: {}
  mod_version: {}
`

func (e *ejabberd) Name() string { return e.name }

func (e *ejabberd) Data() string { return filepath.Join(e.dir, "mnesia") }

// Prepare runs the server once and registers the accounts over its HTTP API.
func (e *ejabberd) Prepare(ctx context.Context, accounts []string) (err error) {
	if e.dir, err = e.env.folder(e.name); err != nil {
		return err
	}
	p, err := e.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Stop()
	work := make(chan string)
	var mu sync.Mutex
	var failed []error
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for a := range work {
				if err := e.register(ctx, a); err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, a := range accounts {
		work <- a
	}
	close(work)
	wg.Wait()
	return errors.Join(failed...)
}

func (e *ejabberd) register(ctx context.Context, account string) error {
	body, err := json.Marshal(map[string]string{"user": account, "host": e.env.Domain, "password": e.env.Password})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.api+"/register", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("register %s: %s: %s", account, resp.Status, answer)
	}
	return err
}

func (e *ejabberd) Start(ctx context.Context) (*Process, error) {
	free, err := freeAddresses(4)
	if err != nil {
		return nil, err
	}
	addr, api, https, s2s := free[0], free[1], free[2], free[3]
	e.api = "http://" + api + "/api"
	cert, err := os.ReadFile(e.env.Cert)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(e.env.Key)
	if err != nil {
		return nil, err
	}
	pemFile := filepath.Join(e.dir, "ejabberd.pem")
	if err := e.env.write(pemFile, append(cert, key...)); err != nil {
		return nil, err
	}
	file := filepath.Join(e.dir, "ejabberd.yml")
	further := ""
	if e.env.Archive {
		further = "  mod_mam:\n    default: always\n"
		if e.sqlite {
			further += "    db_type: sql\n"
		}
	}
	text := fmt.Appendf(nil, ejabberdConfig, e.env.Domain, pemFile, port(addr), port(api), port(https), further, port(s2s))
	if e.sqlite && e.env.Archive {
		if _, err := e.env.folder(e.name, "mnesia"); err != nil {
			return nil, err
		}
		// Its schema is made by hand, as its documentation says.
		file := filepath.Join(e.Data(), "archive.sqlite")
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			if out, err := exec.CommandContext(ctx, "sqlite3", file, ".read /usr/share/ejabberd/sql/lite.sql").CombinedOutput(); err != nil {
				return nil, fmt.Errorf("sqlite3: %w\n%s", err, out)
			}
			if err := e.env.own(file); err != nil {
				return nil, err
			}
		}
		text = fmt.Appendf(text, "sql_type: sqlite\nsql_database: %q\n", file)
	}
	if err := e.env.write(file, text); err != nil {
		return nil, err
	}
	libs, err := filepath.Glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.beam")
	if err != nil || len(libs) == 0 {
		return nil, fmt.Errorf("no ejabberd below /usr/lib (%v)", err)
	}
	lib := filepath.Dir(filepath.Dir(filepath.Dir(libs[0])))
	// The flags of Debian's ejabberdctl, plus no busy waiting. Without a node name there is no distribution, and no epmd is started.
	process, err := e.env.launch(ctx, e.dir, addr,
		[]string{
			"ERL_LIBS=" + lib,
			"EJABBERD_CONFIG_PATH=" + file,
			"EJABBERD_LOG_PATH=" + filepath.Join(e.dir, "ejabberd.log"),
			"ERL_CRASH_DUMP=" + filepath.Join(e.dir, "crash.dump"),
			"ERL_MAX_PORTS=32000", "ERL_MAX_ETS_TABLES=1400",
		},
		"/usr/bin/erl", "+K", "true", "+P", "250000", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"-noinput", "-mnesia", "dir", `"`+filepath.Join(e.dir, "mnesia")+`"`, "-s", "ejabberd")
	if err != nil {
		return nil, err
	}
	process.S2S = s2s
	return process.webSocket(ctx, https)
}
