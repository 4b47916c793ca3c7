package network

import "context"

type callerKey struct{}

// WithCaller marks ctx, the context of a request that came out of a guest, as
// that of a port. Only a driver that has tied the request to the port's own
// wire and address may say so.
func WithCaller(ctx context.Context, portID string) context.Context {
	return context.WithValue(ctx, callerKey{}, portID)
}

// Caller tells which port's guest made the request that ctx belongs to. ok is
// false for requests that did not come out of a guest.
func Caller(ctx context.Context) (portID string, ok bool) {
	portID, ok = ctx.Value(callerKey{}).(string)
	return portID, ok
}
