package network

import "context"

type (
	callerKey struct{}
	hopsKey   struct{}
)

// DefaultHops is how far packets go if nothing is said.
const DefaultHops = 64

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

// WithHops says how the reply to the request that ctx belongs to is kept from
// going further than some hops: that its packets' time to live is so much.
func WithHops(ctx context.Context, limit func(hops int)) context.Context {
	return context.WithValue(ctx, hopsKey{}, limit)
}

// LimitHops of the reply, and of those that follow on its connection. A request
// that no driver has said anything of is not limited.
func LimitHops(ctx context.Context, hops int) {
	if limit, ok := ctx.Value(hopsKey{}).(func(int)); ok {
		limit(hops)
	}
}
