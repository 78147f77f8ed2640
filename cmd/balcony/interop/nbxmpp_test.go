package interop

import (
	"strings"
	"testing"
)

// TestInteropNbxmpp has nbxmpp, the library of Gajim, go through the scenarios of testdata/drive_nbxmpp.py.
func TestInteropNbxmpp(t *testing.T) {
	t.Parallel()
	installed(t, "/usr/lib/python3/dist-packages/nbxmpp", "python3-nbxmpp")
	t.Run("login", func(t *testing.T) {
		t.Parallel()
		s := start(t, "romeo@localhost")
		s.python("drive_nbxmpp.py", "login", "nbxmpp/login.txt")
		s.logins(map[string]int{"SCRAM-SHA-512 success": 4, "SCRAM-SHA-256 success": 2, "SCRAM-SHA-1 success": 2, "PLAIN success": 2, "SCRAM-SHA-512 not-authorized": 1})
	})
	t.Run("resumption", func(t *testing.T) {
		t.Parallel()
		start(t, "romeo@localhost", "juliet@localhost").python("drive_nbxmpp.py", "resumption", "nbxmpp/resumption.txt")
	})
	t.Run("chat", func(t *testing.T) {
		t.Parallel()
		start(t, "romeo@localhost", "juliet@localhost").python("drive_nbxmpp.py", "chat", "nbxmpp/chat.txt")
	})
	t.Run("upload", func(t *testing.T) {
		t.Parallel()
		s := startIn(t, t.TempDir(), strings.Replace(configuration, "https = []", `https = ["127.0.0.1:0"]`, 1), "romeo@localhost")
		s.python("drive_nbxmpp.py", "upload", "nbxmpp/upload.txt")
	})
	t.Run("bookmarks", func(t *testing.T) {
		t.Parallel()
		start(t, "romeo@localhost", "juliet@localhost").python("drive_nbxmpp.py", "bookmarks", "nbxmpp/bookmarks.txt")
	})
	t.Run("avatars", func(t *testing.T) {
		t.Parallel()
		start(t, "romeo@localhost", "juliet@localhost", "tybalt@localhost").python("drive_nbxmpp.py", "avatars", "nbxmpp/avatars.txt")
	})
}
