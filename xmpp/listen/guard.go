package listen

import (
	"fmt"
	"log/slog"
	"runtime/debug"

	streamerr "mellium.im/xmpp/stream"
)

// Guard runs f and turns a panic into the end of one stream alone: it is logged, panicked is called unless it is nil, and the error is
// internal-server-error (RFC 6120 §4.9.3.8).
func Guard(log *slog.Logger, panicked func(), f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("panic", "value", fmt.Sprint(p), "stack", string(debug.Stack()))
			if panicked != nil {
				panicked()
			}
			err = streamerr.InternalServerError
		}
	}()
	return f()
}
