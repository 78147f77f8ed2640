package pubsub

import "context"

type causeKey struct{}

// WithCause marks the changes that are made with a context, for the watchers: those that mirror a change elsewhere must not mirror it back.
func WithCause(ctx context.Context, cause any) context.Context {
	return context.WithValue(ctx, causeKey{}, cause)
}

func causeOf(ctx context.Context) any { return ctx.Value(causeKey{}) }
