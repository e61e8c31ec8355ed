package logging

import (
	"fmt"
	"io"
	"log/slog"
)

// Options configure logging.
type Options struct {
	Level  string `json:"level" help:"debug, info, warn or error"`
	Format string `json:"format" help:"text or json"`
}

// Defaults are the options that are not configured.
func Defaults() Options { return Options{Level: "info", Format: "text"} }

// New returns a logger that writes to w. The error names the option that is
// wrong.
func New(w io.Writer, o Options) (*slog.Logger, error) {
	var level slog.Level
	switch o.Level {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(o.Level)); err != nil {
			return nil, fmt.Errorf("log.level: %w", err)
		}
	default:
		return nil, fmt.Errorf("log.level must be debug, info, warn or error, not %q", o.Level)
	}
	handler := &slog.HandlerOptions{Level: level}
	switch o.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, handler)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, handler)), nil
	default:
		return nil, fmt.Errorf("log.format must be text or json, not %q", o.Format)
	}
}
