package telemetry

import (
	"io"
	"log/slog"
)

// NewLogger returns a logger of lines of key=value pairs, or of JSON.
func NewLogger(w io.Writer, level slog.Leveler, json bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
