package listen

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	streamerr "mellium.im/xmpp/stream"
)

func TestGuard(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	panics := 0
	count := func() { panics++ }
	other := errors.New("other")
	for _, tt := range []struct {
		f    func() error
		want error
	}{
		{func() error { return nil }, nil},
		{func() error { return other }, other},
		{func() error { panic("by the orchard wall") }, streamerr.InternalServerError},
	} {
		if err := Guard(log, count, tt.f); !errors.Is(err, tt.want) {
			t.Errorf("got %v, want %v", err, tt.want)
		}
	}
	if got := out.String(); panics != 1 || strings.Count(got, "\n") != 1 || !strings.Contains(got, "by the orchard wall") || !strings.Contains(got, "guard_test.go") {
		t.Errorf("%d panics counted, log:\n%s", panics, got)
	}
	if err := Guard(log, nil, func() error { panic("again") }); !errors.Is(err, streamerr.InternalServerError) {
		t.Errorf("got %v", err)
	}
}
