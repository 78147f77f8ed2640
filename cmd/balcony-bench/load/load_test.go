package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"balcony/cmd/balcony-bench/client"
	"balcony/cmd/balcony-bench/relay"
	"balcony/cmd/balcony-bench/servers"
)

func TestMessage(t *testing.T) {
	m := newMessage("pair0001@localhost")
	due := 0x1234567890abc * time.Nanosecond
	text := string(m.at(due))
	if len(text) != messageSize {
		t.Errorf("a message has %d bytes, want %d", len(text), messageSize)
	}
	if n := strings.Count(text, "0001234567890abc"); n != 3 {
		t.Errorf("%d stamps, want 3: %s", n, text)
	}
	if got, ok := stampOf([]byte(text), "<body>"); !ok || got != due {
		t.Errorf("stampOf = %v, %v, want %v", got, ok, due)
	}
	for _, bad := range []string{"<message/>", "<body>12", "<body>xxxxxxxxxxxxxxxx</body>"} {
		if _, ok := stampOf([]byte(bad), "<body>"); ok {
			t.Errorf("%s has a stamp", bad)
		}
	}
}

func TestEach(t *testing.T) {
	var sum atomic.Int64
	err := each(t.Context(), 3, 10, func(_ context.Context, i int) error {
		sum.Add(int64(i))
		return nil
	})
	if err != nil || sum.Load() != 45 {
		t.Errorf("sum %d, %v", sum.Load(), err)
	}
	broken := errors.New("broken")
	var calls atomic.Int64
	err = each(t.Context(), 1, 1000, func(_ context.Context, i int) error {
		calls.Add(1)
		if i == 1 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) || calls.Load() > 3 {
		t.Errorf("%d calls, error %v", calls.Load(), err)
	}
}

// relayRun is a Run against a relay in this process.
func relayRun(t *testing.T) *Run {
	env, err := servers.NewEnv(t.TempDir(), "localhost", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(env.Dir, "cert.pem"), filepath.Join(env.Dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- relay.Serve(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	}()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &Run{
		Options: Options{Duration: 200 * time.Millisecond, Warmup: 20 * time.Millisecond, Pairs: 3, Contacts: 3, Concurrency: 2, Sessions: []int{2, 5}},
		Dialer: &client.Dialer{Address: l.Addr().String(), Domain: "localhost", Password: "secret", Mechanism: "SCRAM-SHA-1",
			TLS: &tls.Config{RootCAs: env.Roots, ServerName: "localhost"}, Keys: new(client.KeyCache)},
		PIDs: []int{os.Getpid()}, Rate: 500,
	}
}

// TestScenariosOnRelay runs the scenarios that the relay can do.
func TestScenariosOnRelay(t *testing.T) {
	want := map[string][]string{
		"pairs":    {"cpu", "rate", "p50", "p99"},
		"open-500": {"cpu", "rate", "p50", "p99"},
		"login":    {"cpu", "rate", "p50", "p99"},
		"fanout":   {"cpu", "rate", "p50", "p99"},
		"pep":      {"cpu", "rate", "p50", "p99"},
		"memory":   {"start", "session 2", "session 5"},
	}
	for _, sc := range Scenarios([]int{500}) {
		if !sc.Relay {
			continue
		}
		t.Run(sc.Name, func(t *testing.T) {
			metrics, err := sc.Run(t.Context(), relayRun(t))
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]float64)
			for _, m := range metrics {
				got[m.Key] = m.Value
			}
			for _, key := range want[sc.Name] {
				if v, ok := got[key]; !ok || v <= 0 && !strings.HasPrefix(key, "session") {
					t.Errorf("%s is %v: %v", key, v, fmt.Sprint(metrics))
				}
			}
		})
	}
}

// TestErrorEndsScenario lets the server's process vanish from the system's books while load runs.
func TestErrorEndsScenario(t *testing.T) {
	for _, run := range []func(context.Context, *Run) ([]Metric, error){ClosedLoop, OpenLoop, Login, Memory} {
		r := relayRun(t)
		r.Duration, r.PIDs = time.Minute, []int{-1}
		if _, err := run(t.Context(), r); err == nil {
			t.Error("no error")
		}
	}
}
