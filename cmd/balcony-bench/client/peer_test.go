package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestPeers: two of them prove themselves to each other, and everything that is written arrives whole and in order.
func TestPeers(t *testing.T) {
	const here, there = "127.0.0.8", "127.0.0.9"
	const count = 1000
	got := make(chan string, count)
	b, err := NewPeer(there, selfSigned(t), func(stanza []byte) { got <- string(stanza) })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := NewPeer(here, selfSigned(t), func(stanza []byte) { t.Errorf("got %s", stanza) })
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Connect(t.Context(), net.JoinHostPort(there, PeerPort), there); err != nil {
		t.Fatal(err)
	}
	message := func(i int) string {
		return fmt.Sprintf("<message from='u@%s' to='u@%s' id='%d'><body>%s</body></message>", here, there, i, strings.Repeat("x", i))
	}
	for i := range count {
		a.Write([]byte(message(i)))
	}
	for i := range count {
		select {
		case m := <-got:
			if m != message(i) {
				t.Fatalf("got %s, want message %d", m, i)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("message %d did not come: %v, %v", i, a.Err(), b.Err())
		}
	}
	if err := a.Err(); err != nil {
		t.Error(err)
	}
}
