package main

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestBackupAndRestore: a server that is busy is copied; one that is started with the copy has its accounts, their messages, files and
// certificates, and nothing that came later.
func TestBackupAndRestore(t *testing.T) {
	dir := configure(t, "")
	p := start(t, dir)
	expect(t, dir, "secret\n", "added romeo@localhost\n", "user", "add", "romeo@localhost")
	expect(t, dir, "secret\n", "added juliet@localhost\n", "user", "add", "juliet@localhost")
	romeo := p.login("romeo@localhost", "secret")
	if romeo == nil {
		t.Fatal("no login")
	}
	romeo.say("<message to='juliet@localhost' type='chat'><body>before the backup</body></message><iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", "id='ping'")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	upload := func(id string) (get string) {
		t.Helper()
		romeo.got.Reset()
		romeo.say("<iq type='get' id='"+id+"' to='upload.localhost'><request xmlns='urn:xmpp:http:upload:0' filename='a' size='4'/></iq>", "</slot>")
		urls := regexp.MustCompile(`<put url='([^']*)'/><get url='([^']*)'`).FindStringSubmatch(romeo.got.String())
		if urls == nil {
			t.Fatalf("no slot: %s", romeo.got.String())
		}
		r, err := http.NewRequest(http.MethodPut, strings.ReplaceAll(urls[1], "&amp;", "&"), strings.NewReader("text"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatalf("PUT: %v, %v", resp, err)
		}
		_ = resp.Body.Close()
		return urls[2]
	}
	file := upload("slot1")
	copied := filepath.Join(dir, "copy")
	expect(t, dir, "", "backup in "+copied+": database and 3 files\n", "backup", copied)
	fails(t, dir, "", 1, "is there already", "backup", copied)
	fails(t, dir, "", 2, "an argument is missing", "backup")
	later := upload("slot2")
	expect(t, dir, "secret\n", "added nurse@localhost\n", "user", "add", "nurse@localhost")
	p.stop()
	before, err := os.ReadFile(filepath.Join(dir, "balcony-data", "certificates", "localhost.crt"))
	if err != nil {
		t.Fatal(err)
	}

	restored := t.TempDir()
	if err := os.Rename(copied, filepath.Join(restored, "balcony-data")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(restored, "balcony.toml"), local)
	expect(t, restored, "", "juliet@localhost\nromeo@localhost\n", "user", "list")
	p = start(t, restored)
	juliet := p.login("juliet@localhost", "secret")
	if juliet == nil {
		t.Fatal("no login after the restore")
	}
	juliet.say("<presence/>", "before the backup")
	for _, tt := range []struct {
		url  string
		want int
	}{{file, http.StatusOK}, {later, http.StatusNotFound}} {
		path := tt.url[strings.Index(tt.url, "/upload/"):]
		resp, err := client.Get("https://" + p.addrs["https"] + path)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, err = body.ReadFrom(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tt.want || tt.want == http.StatusOK && body.String() != "text" {
			t.Errorf("GET %s: %d %q, %v, want %d", path, resp.StatusCode, body.String(), err, tt.want)
		}
	}
	after, err := os.ReadFile(filepath.Join(restored, "balcony-data", "certificates", "localhost.crt"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the certificate is another one: %v", err)
	}
	p.stop()
}

// A backup that fails leaves nothing.
func TestBackupThatFails(t *testing.T) {
	dir := configure(t, "")
	fails(t, dir, "", 1, "copy database", "backup", "copy") // there is no database yet
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "copy") {
			t.Errorf("left: %s", e.Name())
		}
	}
}
