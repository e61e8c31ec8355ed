package consensus

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// bridge returns a logger for the Raft library that writes to l.
func bridge(l *slog.Logger) hclog.Logger {
	level := hclog.Off
	for _, pair := range []struct {
		from slog.Level
		to   hclog.Level
	}{{slog.LevelError, hclog.Error}, {slog.LevelWarn, hclog.Warn}, {slog.LevelInfo, hclog.Info}, {slog.LevelDebug, hclog.Debug}} {
		if l.Enabled(context.Background(), pair.from) {
			level = pair.to
		}
	}
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: level, Output: io.Discard})
	logger.RegisterSink(sink{l})
	return logger
}

// sink hands the records of the library to slog.
type sink struct{ logger *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Info:
		to = slog.LevelInfo
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	attrs := make([]slog.Attr, 0, len(args)/2+1)
	if name != "" {
		attrs = append(attrs, slog.String("part", name))
	}
	for i := 0; i+1 < len(args); i += 2 {
		attrs = append(attrs, slog.Any(logKey(args[i]), logValue(args[i+1])))
	}
	s.logger.LogAttrs(context.Background(), to, msg, attrs...) //nolint:sloglint // the messages are the library's
}

// logKey translates to the keys that all our logs share.
func logKey(key any) string {
	if k := fmt.Sprint(key); k != "error" {
		return k
	}
	return "err"
}

func logValue(value any) any {
	f, ok := value.(hclog.Format)
	if !ok || len(f) == 0 {
		return value
	}
	format, _ := f[0].(string)
	return fmt.Sprintf(format, f[1:]...)
}
