//go:build linux

package main

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"swivel/internal/config"
)

// formatter is where all log lines go. A reload may change how they look.
type formatter struct {
	console atomic.Bool
	json    io.Writer
	pretty  io.Writer
}

func newFormatter(w io.Writer) *formatter {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return &formatter{json: w, pretty: zerolog.ConsoleWriter{Out: w, NoColor: true, TimeFormat: time.RFC3339}}
}

func (f *formatter) set(l config.Log) {
	level, err := zerolog.ParseLevel(l.Level)
	if err != nil { // config lets none through that zerolog does not know
		level = zerolog.InfoLevel
	}
	zerolog.SetGlobalLevel(level)
	f.console.Store(l.Format == "console")
}

func (f *formatter) Write(line []byte) (int, error) {
	if f.console.Load() {
		return f.pretty.Write(line)
	}
	return f.json.Write(line)
}
