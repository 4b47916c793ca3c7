package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Poll calls until until it returns nil, and says what it was waiting for and
// what it last heard when the time is over. What can't come true any more, it
// says by Never.
func Poll(ctx context.Context, what string, until func() error) error {
	return PollEvery(ctx, 50*time.Millisecond, what, until)
}

// PollEvery is Poll for those who measure.
func PollEvery(ctx context.Context, every time.Duration, what string, until func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		err := until()
		var never neverError
		if err == nil || errors.As(err, &never) {
			return err
		}
		if ctx.Err() == nil || last == nil {
			last = err // an attempt that was cut off tells nothing
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: %w", what, ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// Never ends a Poll: it is no use to wait any longer.
func Never(err error) error { return neverError{err} }

type neverError struct{ error }

func (e neverError) Unwrap() error { return e.error }
