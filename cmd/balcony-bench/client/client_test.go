package client

import (
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFramer(t *testing.T) {
	const stream = "<?xml version='1.0'?>\n<stream:stream from='a>b' xmlns='jabber:client'>" +
		" <stream:features><a/><b x=\"'/>\">t</b></stream:features>\n<presence/><message to='x'><body>1 &gt; 2 > 3</body></message></stream:stream>"
	want := []string{
		"<stream:features><a/><b x=\"'/>\">t</b></stream:features>",
		"<presence/>",
		"<message to='x'><body>1 &gt; 2 > 3</body></message>",
	}
	readers := map[string]func() io.Reader{
		"whole":  func() io.Reader { return strings.NewReader(stream) },
		"bytes":  func() io.Reader { return iotest.OneByteReader(strings.NewReader(stream)) },
		"halves": func() io.Reader { return iotest.HalfReader(strings.NewReader(stream)) },
	}
	for name, r := range readers {
		t.Run(name, func(t *testing.T) {
			f := NewFramer(r(), 4)
			head, err := f.Header()
			if err != nil || !strings.HasPrefix(string(head), "<stream:stream") || !strings.HasSuffix(string(head), "'jabber:client'>") {
				t.Fatalf("header %q, %v", head, err)
			}
			for _, w := range want {
				got, err := f.Next()
				if err != nil || string(got) != w {
					t.Fatalf("got %q, %v; want %q", got, err, w)
				}
			}
			if _, err := f.Next(); !errors.Is(err, ErrStreamClosed) {
				t.Errorf("at the end: %v, want ErrStreamClosed", err)
			}
		})
	}
}

func TestFramerBound(t *testing.T) {
	f := NewFramer(strings.NewReader("<s><m>"+strings.Repeat("x", 2*maxFrame)), 64)
	if _, err := f.Header(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Next(); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("got %v, want ErrFrameTooLarge", err)
	}
}

func FuzzFramer(f *testing.F) {
	f.Add("<s><a x='>'/><b>t</b></s>", 3)
	f.Add("<?xml?><s> <a><b/></a>", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		// Any chunking gives the same elements.
		read := func(r io.Reader, size int) (out []string) {
			fr := NewFramer(r, size)
			h, err := fr.Header()
			out = append(out, string(h))
			for err == nil {
				var b []byte
				b, err = fr.Next()
				out = append(out, string(b))
			}
			return out
		}
		size = min(max(size, 1), 64)
		a, b := read(strings.NewReader(text), 4096), read(iotest.OneByteReader(strings.NewReader(text)), size)
		if strings.Join(a, "\x00") != strings.Join(b, "\x00") {
			t.Errorf("whole: %q\nbytes: %q", a, b)
		}
	})
}

func TestAttr(t *testing.T) {
	for _, c := range []struct{ frame, name, want string }{
		{`<iq type='result' id="a'b" to='x@y'/>`, "id", "a'b"},
		{`<iq type='result' id="a'b" to='x@y'/>`, "to", "x@y"},
		{`<iq xml:id='1' id = '2'>`, "id", "2"},
		{`<iq x=' id='><b id='3'/></iq>`, "id", ""},
		{`<iq><b id='3'/></iq>`, "id", ""},
	} {
		if got := string(Attr([]byte(c.frame), c.name)); got != c.want {
			t.Errorf("Attr(%q, %q) = %q, want %q", c.frame, c.name, got, c.want)
		}
	}
}

// TestScram replays the exchange of RFC 5802 §5.
func TestScram(t *testing.T) {
	const clientNonce = "fyko+d2lbbFgONRv9qkxdawL"
	s := &scram{mechanism: "SCRAM-SHA-1", account: "user", password: "pencil", cache: new(KeyCache), nonce: clientNonce}
	final, err := s.final("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
	if err != nil {
		t.Fatal(err)
	}
	if want := "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="; final != want {
		t.Errorf("client-final-message %q, want %q", final, want)
	}
	if err := s.verify("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="); err != nil {
		t.Error(err)
	}
	if err := s.verify("v=" + strings.Repeat("A", 27) + "="); err == nil {
		t.Error("a wrong server signature passed")
	}
	for _, bad := range []string{"", "r=other,s=QQ==,i=1", "r=" + clientNonce + ",s=QQ==,i=0", "r=" + clientNonce + ",s=?,i=1"} {
		if _, err := s.final(bad); err == nil {
			t.Errorf("server-first-message %q passed", bad)
		}
	}
}

// TestDeriveKeys uses the StoredKey that follows from the example of RFC 5802 §5.
func TestDeriveKeys(t *testing.T) {
	k, err := DeriveKeys("SCRAM-SHA-1", "pencil", []byte("A%\xc2G\xe4:\xb1\xe9<m\xffv"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(k.Stored); got != "e9d94660c39d65c38fbad91c358f14da0eef2bd6" {
		t.Errorf("StoredKey %s", got)
	}
	if _, err := DeriveKeys("SCRAM-MD5", "pencil", nil, 1); err == nil {
		t.Error("unknown mechanism accepted")
	}
}
