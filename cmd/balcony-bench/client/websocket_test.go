package client

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestWebSocketReads: the text of messages, in any pieces, without the frames around it (RFC 6455 §5.2).
func TestWebSocketReads(t *testing.T) {
	long := strings.Repeat("x", 300)
	var wire bytes.Buffer
	wire.WriteString("\x81\x06<open>\x81\x00\x8A\x02hi\x01\x03<me\x80\x02/>")
	wire.WriteString("\x81\x7e\x01\x2c" + long)
	wire.WriteString("\x88\x02\x03\xe8")
	got, err := io.ReadAll(&overWebSocket{r: bufio.NewReaderSize(&wire, 16)})
	if err != nil || string(got) != "<open><me/>"+long {
		t.Errorf("%q, %v", got, err)
	}
}
