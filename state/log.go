package state

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo is etcd's kind of logger that hands its warnings and errors to ours.
// What etcd tells of its ordinary days goes nowhere.
func zapTo(log *slog.Logger) *zap.Logger {
	return zap.New(slogCore{log.With("from", "etcd")})
}

// ordinary are what etcd warns of on ordinary days: at each start about
// listeners, of which the embedded one has none; and on some first ones, when
// it looks for its storage's version before the first commit is on the disk.
var ordinary = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"Failed to detect schema version":  true,
	"failed to update storage version": true,
}

// slogCore is a zapcore.Core over a slog.Logger.
type slogCore struct{ log *slog.Logger }

func (c slogCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && c.log.Enabled(context.Background(), slogLevel(l))
}

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{c.log.With(attrs(fields)...)}
}

func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !ordinary[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), slogLevel(e.Level), e.Message, attrs(fields)...)
	return nil
}

func (slogCore) Sync() error { return nil }

func slogLevel(l zapcore.Level) slog.Level {
	if l == zapcore.WarnLevel {
		return slog.LevelWarn
	}
	return slog.LevelError
}

func attrs(fields []zapcore.Field) []any {
	m := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, len(fields))
	for _, f := range fields {
		f.AddTo(m)
	}
	for k, v := range m.Fields {
		out = append(out, slog.Any(k, v))
	}
	return out
}
