package interop

import (
	"strings"
	"testing"
)

// TestInteropSlixmpp has slixmpp go through the scenarios of testdata/drive_slixmpp.py. What it must see is in testdata/slixmpp, one
// fact a line in the order of the scenario, with the rules that they come from.
func TestInteropSlixmpp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scenario string
		accounts []string
		logins   map[string]int // nil: not looked at
		listen   string         // a listener besides those of clients
		more     string         // configuration
	}{
		{scenario: "login", accounts: []string{"romeo@localhost"}, logins: map[string]int{
			"SCRAM-SHA-512-PLUS success": 2, "SCRAM-SHA-256-PLUS success": 1, "SCRAM-SHA-1-PLUS success": 1, "PLAIN success": 3,
			// On the way to PLAIN with TLS 1.3: tls-unique does not exist there, and without -PLUS slixmpp suspects a downgrade. Two times,
			// and once more each for the last two lines of the scenario.
			"SCRAM-SHA-512-PLUS not-authorized": 3, "SCRAM-SHA-256-PLUS not-authorized": 2, "SCRAM-SHA-1-PLUS not-authorized": 2,
			"SCRAM-SHA-512 mechanism-too-weak": 3, "SCRAM-SHA-256 mechanism-too-weak": 2, "SCRAM-SHA-1 mechanism-too-weak": 2,
		}},
		{scenario: "conflict", accounts: []string{"romeo@localhost"}},
		{scenario: "roster", accounts: []string{"romeo@localhost"}},
		{scenario: "subscription", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "chat", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "carbons", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "offline", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "mam", accounts: []string{"romeo@localhost", "nurse@localhost", "juliet@localhost"}},
		{scenario: "resumption", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "blocking", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "services", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "registration", accounts: []string{"taken@open.test"}},
		{scenario: "administration", accounts: []string{"romeo@localhost", "admin@localhost"}},
		{scenario: "component", accounts: []string{"romeo@localhost"}, listen: "component", more: "[[component]]\nname = \"echo.localhost\"\nsecret = \"wherefore art thou\"\n"},
		{scenario: "pep", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "omemo", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "pubsub", accounts: []string{"romeo@localhost", "juliet@localhost"}},
		{scenario: "upload", accounts: []string{"romeo@localhost", "juliet@localhost"}, listen: "https"},
	} {
		t.Run(tt.scenario, func(t *testing.T) {
			t.Parallel()
			installed(t, "/usr/lib/python3/dist-packages/slixmpp", "python3-slixmpp")
			for _, name := range []string{"aiohttp", "oldmemo", "twomemo", "xmlschema"} {
				installed(t, "/usr/lib/python3/dist-packages/"+name, "python3-"+name)
			}
			s := startIn(t, t.TempDir(), strings.Replace(configuration, tt.listen+" = []", tt.listen+` = ["127.0.0.1:0"]`, 1)+tt.more, tt.accounts...)
			s.python("drive_slixmpp.py", tt.scenario, "slixmpp/"+tt.scenario+".txt")
			if tt.logins != nil {
				s.logins(tt.logins)
			}
		})
	}
}
